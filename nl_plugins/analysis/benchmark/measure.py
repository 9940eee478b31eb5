"""Measure a block of ours and upstream's, in one run."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import nan, prod

import torch
from mmcv import cnn
from torch import Tensor, nn

from ... import blocks
from ...blocks.checks import MODES
from ..measuring import (
    MeasurementError,
    alone,
    memory_returned,
    peak_memory,
    time_in_turns,
)

#: Names of the blocks that can be compared.
BLOCKS = (*MODES, 'disentangled')
IMPLEMENTATIONS = ('upstream', 'nl_plugins', 'matmul')
DTYPES = dict(
    fp32=torch.float32,
    tf32=torch.float32,
    bf16=torch.bfloat16,
    fp16=torch.float16,
)
#: Seconds after which no more turns start.
_LONGEST = 100
#: Side of the largest matrices of the floor; beyond, time is extrapolated.
_LARGEST = 4096


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        block (str): One of ``BLOCKS``.
        size (tuple[int, ...]): Length, height and width, or frames, height
            and width of the input.
        channels (int): Channels of the input.
        train (bool): Forward and backward, or forward without gradient.
        device (str): Where it runs.
        dtype (str): One of ``DTYPES``: float32, the same with the TensorFloat32
            products of GPUs, and the half precisions with autocast.
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

    @property
    def phase(self) -> str:
        """``'training'`` or ``'inference'``."""
        return 'training' if self.train else 'inference'

    @property
    def size_text(self) -> str:
        """The size as it is given on the command line."""
        return 'x'.join(map(str, self.size))


@dataclass(frozen=True)
class Result:
    """What a case took.

    Attributes:
        seconds (float): Median time of one iteration.
        bytes (float): Largest memory beyond the block, its input and the
            gradients of both. On the CPU that of the process, as Linux
            counts it.
        error (str): Why it could not run, ``''`` if it could.
        note (str): What ran in its place, and why.
    """

    seconds: float = nan
    bytes: float = nan
    error: str = ''
    note: str = ''


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Compute float32 products on GPUs in TensorFloat32, or exactly."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision('high' if dtype == 'tf32' else 'highest')
    torch.backends.cudnn.allow_tf32 = dtype == 'tf32'
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


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
    running = {name: name for name in IMPLEMENTATIONS}
    results = {name: _measure_memory(case, name) for name in IMPLEMENTATIONS}
    if case.block == 'concatenation' and results['upstream'].error:
        note = 'its formula written out, as upstream fails: '
        note += results['upstream'].error
        running['upstream'] = 'naive'
        naive = _measure_memory(case, 'naive')
        results['upstream'] = naive if naive.error else replace(naive, note=note)
    able = [name for name in running if not results[name].error]
    names = [running[name] for name in able]
    try:
        seconds = alone(case.device, _median_times, case, names, repeats)
    except MeasurementError as error:
        return results | dict.fromkeys(able, Result(error=str(error)))
    return results | {
        name: replace(results[name], seconds=s) for name, s in zip(able, seconds)
    }


def multiplications(case: Case) -> int:
    """Count the fewest of an iteration; a backward has twice the forward's."""
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

    concat_project: Callable[[Tensor], Tensor]

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


def _measure_memory(case: Case, implementation: str) -> Result:
    if implementation == 'matmul':
        return Result(bytes=0)
    try:
        with memory_returned():
            return Result(bytes=alone(case.device, _memory, case, implementation))
    except MeasurementError as error:
        return Result(error=str(error))


def _memory(case: Case, implementation: str) -> int:
    """Bytes that one iteration needs."""
    iterate = _Block(case, implementation)
    with precision(case.dtype):
        if iterate.x.is_cuda:  # cuBLAS keeps a workspace
            iterate()
            torch.cuda.reset_peak_memory_stats()
        before = peak_memory(case.device)
        iterate()
    return peak_memory(case.device) - before


def _median_times(case: Case, names: list[str], repeats: int) -> list[float]:
    """Median seconds of one iteration of each."""
    iterations: list[Callable] = [
        _Product(case) if name == 'matmul' else _Block(case, name) for name in names
    ]
    with precision(case.dtype):
        turns = time_in_turns(iterations, repeats, _LONGEST)
    return [
        statistics.median(times) / getattr(iterate, 'share', 1)
        for iterate, times in zip(iterations, turns)
    ]
