"""Time and memory of the blocks, side by side with upstream's.

Every case runs in a process of its own, so that one cannot fill the memory
that another measures. The processes of one comparison live together and take
turns, so that both see the same machine.
"""
import re
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from mmcv import cnn
from torch import nn

from .blocks import DisentangledNonLocal2d, NonLocal2d
from .blocks.base import MODES

#: Names of the blocks that can be compared.
BLOCKS = (*MODES, 'disentangled')
IMPLEMENTATIONS = ('upstream', 'nl_plugins')


class Case(NamedTuple):
    """What is measured.

    Attributes:
        block (str): One of ``BLOCKS``.
        size (tuple[int, int]): Height and width of the input.
        channels (int): Channels of the input.
        train (bool): Forward and backward, or forward without gradient.
        device (str): Where it runs.
    """
    block: str
    size: tuple[int, int]
    channels: int
    train: bool
    device: str


class Result(NamedTuple):
    """What a case took.

    Attributes:
        seconds (float): Median time of one iteration.
        bytes (int): Largest memory beyond the block, its input and the
            gradients of both. On the CPU that of the process, as Linux
            counts it.
        error (str): Why it could not run, ``''`` if it could.
    """
    seconds: float = float('nan')
    bytes: float = float('nan')
    error: str = ''


def compare(case: Case, repeats: int = 5) -> dict[str, Result]:
    """Measure upstream's block and ours, in turns.

    Args:
        case (Case): What to measure.
        repeats (int): Timed iterations of each, after one to warm up and
            measure the memory. Defaults to 5.

    Returns:
        dict[str, Result]: The result of each of ``IMPLEMENTATIONS``.
    """
    context = get_context('spawn')
    pipes, processes = {}, []
    for implementation in IMPLEMENTATIONS:
        pipes[implementation], remote = context.Pipe()
        processes.append(
            context.Process(
                target=_serve,
                args=(case, implementation, remote),
                daemon=True))
        processes[-1].start()
        remote.close()  # or the end of the process would not be seen
    memory, errors = {}, {}
    seconds = {implementation: [] for implementation in pipes}
    for implementation, pipe in pipes.items():
        try:
            memory[implementation], errors[implementation] = pipe.recv()
        except EOFError:
            errors[implementation] = 'the process was killed: out of memory?'
    for _ in range(repeats):
        for implementation, pipe in pipes.items():
            if not errors[implementation]:
                pipe.send(True)
                seconds[implementation].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes):
        pipe.close()
        process.join()
    return {
        implementation: Result(error=errors[implementation])
        if errors[implementation] else Result(
            statistics.median(seconds[implementation]),
            memory[implementation])
        for implementation in IMPLEMENTATIONS
    }


def to_markdown(results: dict[Case, dict[str, Result]]) -> str:
    """A table of comparisons.

    Args:
        results (dict[Case, dict[str, Result]]): What :func:`compare` gave.

    Returns:
        str: Markdown, with the ratios upstream / nl_plugins.
    """
    lines = [
        '| block | input | | upstream | nl_plugins | ratio | upstream | '
        'nl_plugins | ratio |', '|---|---|---' + '|---:' * 6 + '|'
    ]
    for case, by_implementation in results.items():
        theirs, ours = (by_implementation[i] for i in IMPLEMENTATIONS)
        cells = [
            case.block.replace('_', ' '),
            '{} x {} x {}'.format(case.channels, *case.size),
            'training' if case.train else 'inference',
            *_cells('s', theirs, ours, theirs.seconds, ours.seconds),
            *_cells('MB', theirs, ours, theirs.bytes / 2**20,
                    ours.bytes / 2**20)
        ]
        lines.append(f'| {" | ".join(cells)} |')
    errors = {
        f'{case.block.replace("_", " ")}: {result.error}'
        for case, by_implementation in results.items()
        for result in by_implementation.values() if result.error
    }
    return '\n'.join(
        lines + [f'\nfails: {error}' for error in sorted(errors)])


def _cells(unit: str, theirs: Result, ours: Result, their_value: float,
           our_value: float) -> list[str]:
    digits = 3 if unit == 's' else 0
    return [
        'fails' if result.error else f'{value:.{digits}f} {unit}'
        for result, value in ((theirs, their_value), (ours, our_value))
    ] + [
        '' if theirs.error or ours.error else f'{their_value / our_value:.1f}x'
    ]


def _build(case: Case, implementation: str) -> nn.Module:
    if case.block != 'disentangled':
        block_type = NonLocal2d if implementation == 'nl_plugins' else (
            cnn.NonLocal2d)
        return block_type(case.channels, mode=case.block)
    if implementation == 'nl_plugins':
        return DisentangledNonLocal2d(case.channels)
    from mmseg.models.decode_heads.dnl_head import (
        DisentangledNonLocal2d as MMSegDisentangledNonLocal2d,
    )
    return MMSegDisentangledNonLocal2d(case.channels, temperature=0.05)


def _serve(case: Case, implementation: str, pipe: Connection) -> None:
    """Report the memory of one iteration, then the time of each asked for."""
    block = _build(case, implementation).to(case.device)
    x = torch.randn(1, case.channels, *case.size, device=case.device)
    x.requires_grad_(case.train)

    def iterate() -> None:
        with torch.set_grad_enabled(case.train):
            out = block(x)
            if case.train:
                out.backward(x.detach())
        if x.is_cuda:
            torch.cuda.synchronize()

    for tensor in (x, *block.parameters()) if case.train else ():
        tensor.grad = torch.zeros_like(tensor)
    before = _memory(x.is_cuda)
    try:
        iterate()
    except (RuntimeError, MemoryError) as error:
        pipe.send((0, str(error).splitlines()[0]))
        return
    pipe.send((_memory(x.is_cuda) - before, ''))
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        start = time.perf_counter()
        iterate()
        pipe.send(time.perf_counter() - start)


def _memory(cuda: bool) -> int:
    """The largest memory so far, in bytes."""
    if cuda:
        return torch.cuda.max_memory_allocated()
    # Not getrusage: its maximum is handed down from the parent process.
    status = Path('/proc/self/status').read_text()
    return 1024 * int(re.search(r'VmHWM:\s+(\d+) kB', status)[1])
