"""Measure a block of ours and upstream's, in one run.

Memory is measured in a process of its own for each, so that one cannot fill
what another measures. For the time all run in one process, in turns: several
would disturb each other with the threads that wait for work.
"""

import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from math import prod
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from mmcv import cnn
from torch import Tensor, nn

from ... import blocks
from ...blocks.checks import MODES
from ...errors import first_line

#: Names of the blocks that can be compared.
BLOCKS = (*MODES, 'disentangled')
IMPLEMENTATIONS = ('upstream', 'nl_plugins', 'matmul')
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
#: Seconds that a turn takes at least, by repeating what is measured.
_TURN = 0.2
#: Seconds after which no more turns begin.
_LONGEST = 100
#: Side of the largest matrices of the floor; beyond, time is extrapolated.
_LARGEST = 4096


class Case(NamedTuple):
    """What is measured.

    Attributes:
        block (str): One of ``BLOCKS``.
        size (tuple[int, ...]): Length, height and width, or frames, height
            and width of the input.
        channels (int): Channels of the input.
        train (bool): Forward and backward, or forward without gradient.
        device (str): Where it runs.
        dtype (str): One of ``DTYPES``; the half precisions with autocast.
        batch (int): Samples.
        sub_sample (bool): Whether key and value are pooled.
    """

    block: str
    size: tuple[int, ...]
    channels: int = 512
    train: bool = True
    device: str = 'cpu'
    dtype: str = 'fp32'
    batch: int = 1
    sub_sample: bool = False


class Result(NamedTuple):
    """What a case took.

    Attributes:
        seconds (float): Median time of one iteration.
        bytes (float): Largest memory beyond the block, its input and the
            gradients of both. On the CPU that of the process, as Linux
            counts it.
        error (str): Why it could not run, ``''`` if it could.
        note (str): What ran in its place, and why.
    """

    seconds: float = float('nan')
    bytes: float = float('nan')
    error: str = ''
    note: str = ''


def compare(case: Case, repeats: int = 5) -> dict[str, Result]:
    """Measure upstream's block, ours, and a matrix product, in turns.

    Where upstream's block cannot run, its formula written out runs in its
    place. The product has as many multiplications as the block cannot do
    without.

    Args:
        case (Case): What to measure.
        repeats (int): Timed turns of each, fewer if they take minutes.
            Defaults to 5.

    Returns:
        dict[str, Result]: The result of each of ``IMPLEMENTATIONS``.
    """
    memory, results, notes = {}, {}, {}
    running = list(IMPLEMENTATIONS)
    for name in IMPLEMENTATIONS:
        memory[name] = _measure_memory(case, name)
        if (
            name == 'upstream'
            and isinstance(memory[name], str)
            and case.block == 'concatenation'
        ):
            notes[name] = memory[name]
            memory['naive'] = _measure_memory(case, 'naive')
            running[0] = 'naive'
    able = [name for name in running if not isinstance(memory[name], str)]
    seconds = _measure_time(case, able, repeats)
    for implementation, name in zip(IMPLEMENTATIONS, running):
        errors = [x for x in (memory[name], seconds) if isinstance(x, str)]
        results[implementation] = (
            Result(error=errors[0]) if errors else Result(seconds[name], memory[name])
        )
    if notes and not results['upstream'].error:
        results['upstream'] = results['upstream']._replace(
            note='its formula written out, as upstream fails: ' + notes['upstream']
        )
    return results


def multiplications(case: Case) -> int:
    """What an iteration cannot do without; backward is twice the forward."""
    positions, channels = prod(case.size), case.channels
    inner = channels // 2
    key = channels if case.block == 'gaussian' else inner
    projections = 2 * positions * channels * inner
    if case.block != 'gaussian':
        projections += 2 * positions * channels * inner
    keys = positions
    if case.sub_sample:  # by 2 in each direction of space
        keys //= 2 if len(case.size) == 1 else 4
    pairs = positions * keys * (key + inner)
    if case.block == 'dot_product':
        pairs = min(pairs, (positions + keys) * key * inner)
    if case.block == 'concatenation':
        pairs = 0
    return case.batch * (projections + pairs) * (3 if case.train else 1)


class _NaiveConcatenation:
    """mmcv's concatenation without what autograd refuses in it."""

    def concatenation(self, theta_x: Tensor, phi_x: Tensor) -> Tensor:
        queries, keys = theta_x.shape[2], phi_x.shape[3]
        pairs = torch.cat(
            [theta_x.expand(-1, -1, -1, keys), phi_x.expand(-1, -1, queries, -1)], dim=1
        )
        return self.concat_project(pairs).squeeze(1) / keys


def _build(case: Case, implementation: str) -> nn.Module:
    ndim = len(case.size)
    if implementation == 'nl_plugins':
        if case.block == 'disentangled':
            return getattr(blocks, f'DisentangledNonLocal{ndim}d')(
                case.channels, sub_sample=case.sub_sample
            )
        return getattr(blocks, f'NonLocal{ndim}d')(
            case.channels, mode=case.block, sub_sample=case.sub_sample
        )
    if case.block == 'disentangled':
        if ndim != 2:
            raise ValueError('MMSegmentation has this block in 2d only')
        from mmseg.models.decode_heads.dnl_head import DisentangledNonLocal2d

        return DisentangledNonLocal2d(
            case.channels, temperature=0.05, sub_sample=case.sub_sample
        )
    block_type = getattr(cnn, f'NonLocal{ndim}d')
    if implementation == 'naive':
        block_type = type('Naive', (_NaiveConcatenation, block_type), {})
    return block_type(case.channels, mode=case.block, sub_sample=case.sub_sample)


class _Block:
    """A block that can be run again and again."""

    def __init__(self, case: Case, implementation: str) -> None:
        block = _build(case, implementation).to(case.device)
        x = torch.randn(case.batch, case.channels, *case.size, device=case.device)
        x.requires_grad_(case.train)
        for tensor in (x, *block.parameters()) if case.train else ():
            tensor.grad = torch.zeros_like(tensor)
        self.case, self.block, self.x = case, block, x
        self.cotangent = x.detach()

    def __call__(self) -> None:
        dtype = DTYPES[self.case.dtype]
        with (
            torch.set_grad_enabled(self.case.train),
            torch.autocast(self.x.device.type, dtype, enabled=dtype != torch.float32),
        ):
            out = self.block(self.x)
        if self.case.train:
            out.backward(self.cotangent.to(out.dtype))
        if self.x.is_cuda:
            torch.cuda.synchronize()


class _Product:
    """A product of square matrices with a number of multiplications."""

    def __init__(self, case: Case) -> None:
        needed = multiplications(case)
        side = min(round(needed ** (1 / 3)), _LARGEST)
        #: How much of them it does.
        self.share = side**3 / needed
        self.matrix = torch.randn(
            side, side, device=case.device, dtype=DTYPES[case.dtype]
        )
        self.out = torch.empty_like(self.matrix)

    def __call__(self) -> None:
        torch.mm(self.matrix, self.matrix, out=self.out)
        if self.matrix.is_cuda:
            torch.cuda.synchronize()


def _measure_memory(case: Case, implementation: str) -> int | str:
    """Bytes, or why it fails."""
    if implementation == 'matmul':
        return 0
    with trimming():
        return in_a_process(_serve_memory, case, implementation)


def _measure_time(case: Case, names: list[str], repeats: int) -> dict[str, float] | str:
    """Median seconds of one iteration of each, or why it fails."""
    return in_a_process(_serve_time, case, names, repeats)


def in_a_process(target: Callable, *args: Any) -> Any:
    """What a function sends from a process of its own."""
    context = get_context('spawn')
    pipe, remote = context.Pipe()
    process = context.Process(target=target, args=(*args, remote), daemon=True)
    process.start()
    remote.close()  # or the end of the process would not be seen
    try:
        return pipe.recv()
    except EOFError:
        return 'the process was killed: out of memory?'
    finally:
        pipe.close()
        process.join()


def trimming() -> AbstractContextManager:
    """Processes that start here hand freed memory back at once.

    glibc keeps some of it otherwise, which would count as needed.
    """
    names = 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_'
    return mock.patch.dict(os.environ, dict.fromkeys(names, str(2**20)))


def _serve_memory(case: Case, implementation: str, pipe: Connection) -> None:
    """Send the memory of one iteration."""
    try:
        use_device(case.device)
        iterate = _Block(case, implementation)
        before = peak_memory(case.device)
        iterate()
        pipe.send(peak_memory(case.device) - before)
    except Exception as error:  # whatever a block may raise
        pipe.send(first_line(error))


def _serve_time(case: Case, names: list[str], repeats: int, pipe: Connection) -> None:
    """Send the median time of one iteration of each."""
    try:
        pipe.send(_median_times(case, names, repeats))
    except Exception as error:
        pipe.send(first_line(error))


def _median_times(case: Case, names: list[str], repeats: int) -> dict[str, float]:
    use_device(case.device)
    iterations = [
        _Product(case) if name == 'matmul' else _Block(case, name) for name in names
    ]
    return {
        name: statistics.median(times) / getattr(iterate, 'share', 1)
        for name, iterate, times in zip(
            names, iterations, time_in_turns(iterations, repeats)
        )
    }


def time_in_turns(
    iterations: Sequence[Callable[[], None]], repeats: int, longest: float = _LONGEST
) -> list[list[float]]:
    """Time several things one after the other, again and again.

    What the machine does beside them disturbs all of them alike.

    Args:
        iterations (Sequence[Callable]): What is timed.
        repeats (int): Turns.
        longest (float): Seconds after which no more turns begin. Defaults to
            100.

    Returns:
        list[list[float]]: Seconds of each in every turn.
    """
    # To warm up, and to find how many fill a turn.
    numbers = []
    for iterate in iterations:
        first = _time(iterate, 1)
        numbers.append(1 if first > _TURN else max(1, round(_TURN / _time(iterate, 1))))
    seconds = [[] for _ in iterations]
    start = time.perf_counter()
    for _ in range(repeats):
        for iterate, number, times in zip(iterations, numbers, seconds):
            times.append(_time(iterate, number))
        if time.perf_counter() - start > longest:
            break
    return seconds


def _time(iterate: Callable, number: int) -> float:
    """Seconds of one of some iterations."""
    start = time.perf_counter()
    for _ in range(number):
        iterate()
    return (time.perf_counter() - start) / number


def use_device(device: str) -> None:
    """Make a GPU the one that is synchronized and asked for its memory."""
    if torch.device(device).type == 'cuda':
        torch.cuda.set_device(device)


def peak_memory(device: str) -> int:
    """The largest memory of this process so far, in bytes."""
    if torch.device(device).type == 'cuda':
        return torch.cuda.max_memory_allocated()
    # Not getrusage: its maximum is handed down from the parent process.
    status = Path('/proc/self/status').read_text()
    return 1024 * int(re.search(r'VmHWM:\s+(\d+) kB', status)[1])
