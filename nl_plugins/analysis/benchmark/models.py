"""Time and memory of inference with whole models."""

import time
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from ...engine.config import build_model, load_config
from ...errors import first_line
from ..weights import draw_weights
from .measure import in_a_process, peak_memory, trimming


class ModelResult(NamedTuple):
    """What one forward of a model took.

    Attributes:
        seconds (float): Time of the second forward.
        bytes (float): Largest memory beyond the model and its input. On the
            CPU that of the process, as Linux counts it.
        keys (frozenset[str]): Names of the parameters.
        error (str): Why it could not run, ``''`` if it could.
    """

    seconds: float = float('nan')
    bytes: float = float('nan')
    keys: frozenset[str] = frozenset()
    error: str = ''


def compare_models(configs: list[str], size: tuple[int, ...], device: str) -> str:
    """Run models one after the other, each in a process of its own.

    They get random weights, the same ones for the same names, so that the
    outputs of models with the same parameters can be compared.

    Args:
        configs (list[str]): Paths or names of configs. The first one is the
            baseline.
        size (tuple[int, ...]): Sizes of the input after batch and channels.
        device (str): Where to run.

    Returns:
        str: A Markdown table with time and memory, their difference to the
        baseline, and how far the output is from that of an earlier model
        with the same parameters, relative to its largest value.
    """
    lines = [
        '| model | time | memory | beyond the first | output beside an earlier'
        ' one with the same parameters |',
        '|---|---:|---:|---:|---|',
    ]
    earlier = {}
    first = None
    with TemporaryDirectory() as folder:
        for number, config in enumerate(configs):
            path = Path(folder, f'{number}.pt')
            with trimming():
                result = in_a_process(_serve, config, size, device, str(path))
            if isinstance(result, str):
                result = ModelResult(error=result)
            if result.error:
                lines.append(f'| {config} | fails: {result.error} | | | |')
                continue
            first = result if first is None else first
            if result.keys in earlier:
                expected = torch.load(earlier[result.keys])
                error = (torch.load(path) - expected).abs().max()
                same = f'differs by {float(error / expected.abs().max()):.1e}'
            else:
                same = ''
                earlier[result.keys] = path
            lines.append(
                f'| {config} | {result.seconds:.1f} s | '
                f'{result.bytes / 2**20:.0f} MB | '
                f'{(result.bytes - first.bytes) / 2**20:+.0f} MB | {same} |'
            )
    return '\n'.join(lines)


def _serve(
    config: str, size: tuple[int, ...], device: str, path: str, pipe: Connection
) -> None:
    """Run a model and send what it took; save its output."""
    try:
        cfg = load_config(config)
        model = build_model(cfg)
        draw_weights(model, identities=False)
        model.to(device).eval()
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 3, *size, generator=generator).to(device)
        before = peak_memory(device)
        with torch.no_grad():
            model(x, mode='tensor')
            used = peak_memory(device) - before
            start = time.perf_counter()
            out = model(x, mode='tensor')
            if x.is_cuda:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        torch.save(out.cpu(), path)
    except Exception as error:  # whatever a model may raise
        pipe.send(ModelResult(error=first_line(error)))
        return
    pipe.send(ModelResult(seconds, used, frozenset(model.state_dict())))
