"""The ways to compute a softmax attention, and the choice between them.

=========  ================================================================
naive      keeps the attention map
fused      PyTorch's ``scaled_dot_product_attention``
chunked    rows of the map in chunks, recomputed in the backward pass
symmetric  chunks of half of the map, where query and key are one tensor
=========  ================================================================

Operands have the shapes ``(B, h, Nq, D)``, ``(B, h, Nk, D)`` and
``(B, h, Nk, Dv)``. Letters as in :mod:`nl_plugins.functional.attention`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from . import symmetric
from .chunked import (
    GPU_CHUNK,
    SMALL,
    chunk_rows,
    chunked_softmax_attention,
    naive_softmax_attention,
)

#: Bytes up to which a GPU keeps a map, however small the operands are: those
#: of the two buffers of its chunks.
SMALL_ON_GPUS = 2 * 4 * GPU_CHUNK
#: Multiplications of a product of query and key up to which a GPU waits for
#: the launches of kernels, of which PyTorch's fused call has the fewest.
FEW_ON_GPUS = 2**27
#: Samples, and heads, of PyTorch's fused kernels on a GPU: its largest grid.
GRID = 65535


class Backend(NamedTuple):
    """One way to compute a softmax attention.

    Attributes:
        run (Callable): ``run(query, key, value, scale)`` returns the attended
            values, ``(B, h, Nq, Dv)``.
        obstacle (Callable): ``obstacle(query, key, value)`` returns the reason
            why it cannot run, ``''`` if it can.
        memory (Callable): ``memory(query, key, value)`` estimates the bytes of
            training beyond operands, output and gradients.
    """

    run: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    obstacle: Callable[[Tensor, Tensor, Tensor], str]
    memory: Callable[[Tensor, Tensor, Tensor], int]


def choose(query: Tensor, key: Tensor, value: Tensor) -> tuple[str, str]:
    """The backend that :func:`use_backend` selects, or else the fastest.

    ``tools/benchmark.py --backends`` prints the times that the rule follows.

    Returns:
        tuple[str, str]: Name of the backend, and the reason.

    Raises:
        ValueError: If the selected backend cannot run.
    """
    if _selected:
        selected = _selected[-1]
        if obstacle := BACKENDS[selected].obstacle(query, key, value):
            raise ValueError(f'use_backend({selected!r}) cannot run: {obstacle}')
        return selected, 'selected by use_backend'
    if torch.onnx.is_in_onnx_export():
        return 'naive', 'ONNX has a fused operator only from opset 23 on'
    if query.is_meta or torch.jit.is_tracing():
        return 'fused', 'one operator, for any size'
    if torch.compiler.is_compiling() and query.device.type == 'cpu':
        return 'fused', 'one operator of the graph, for any size'
    if has_tangent(query, key, value):
        return 'naive', 'the others have no forward derivative'
    if query.device.type == 'cpu':
        return _choose_on_cpus(query, key, value)
    return _choose_on_gpus(query, key, value)


def _choose_on_cpus(query: Tensor, key: Tensor, value: Tensor) -> tuple[str, str]:
    keys, channels, value_channels = *key.shape[-2:], value.shape[-1]
    # With fewer keys it depends on the CPU which of them is faster.
    if key is query and keys * max(channels, 256) > 2**19:
        return 'symmetric', 'query and key are one tensor: half of the logits'
    # PyTorch's kernel loses NaN with fewer than 16 keys.
    if keys <= max(SMALL * (channels + value_channels), 16):
        return 'naive', 'a small map is kept faster than it is recomputed'
    # The fused kernel requires as many channels of the value as of the key.
    # Forward and backward take 4 products over the key's and 3 over the
    # value's; chunks are slower by a tenth.
    padded = 7 * max(channels, value_channels)
    if padded <= 1.1 * (4 * channels + 3 * value_channels):
        return 'fused', 'key and value have similar numbers of channels'
    return 'chunked', 'the fused kernel would pad key or value'


def _choose_on_gpus(query: Tensor, key: Tensor, value: Tensor) -> tuple[str, str]:
    """Flash attention where it takes the operands, else dense products.

    PyTorch's other fused kernel is faster for small operands alone
    (docs/performance_gpu.md), and untested in deterministic mode. Dense
    products run as upstream's do, on tensor cores in half precision.
    """
    channels = max(key.shape[-1], value.shape[-1])
    few = query.shape[:-1].numel() * key.shape[-2] * channels <= FEW_ON_GPUS
    deterministic = torch.are_deterministic_algorithms_enabled()
    if few and not deterministic and not _fused_obstacle(query, key, value):
        return 'fused', 'one launch; the operands are small'
    if _flash_takes(query, key, value):
        return 'fused', 'the flash kernel takes the operands'
    operands = sum(t.numel() * t.element_size() for t in (query, key, value))
    if _map_bytes(query, key, value) <= max(SMALL * operands, SMALL_ON_GPUS):
        return 'naive', 'no flash kernel; a small map is kept'
    return 'chunked', 'no flash kernel; a large map is recomputed'


def _flash_takes(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether PyTorch's flash kernel computes this attention."""
    sizes = _fused_sizes(query, key, value)
    half = value.dtype in (torch.float16, torch.bfloat16)
    if not (half and max(sizes) <= 256 and query.is_cuda):
        return False
    if _fused_obstacle(query, key, value):
        return False
    if torch.compiler.is_compiling():  # Dynamo cannot ask
        return True
    return _ask_pytorch(query, key, value, sizes)


def _ask_pytorch(query: Tensor, key: Tensor, value: Tensor, sizes: list[int]) -> bool:
    """Whether PyTorch's flash kernel takes operands of that many channels.

    That also depends on the GPU, and on whether there is a backward pass.
    """
    if torch.__version__ < '2.5':  # other arguments, or none
        return False
    operands = [
        torch.empty(1, 1, 1, size, dtype=value.dtype, device=t.device)
        .requires_grad_(t.requires_grad)
        .expand(*t.shape[:-1], size)
        for t, size in zip((query, key, value), sizes)
    ]
    arguments: Any = (*operands, None, 0.0, False, False)
    params = torch.backends.cuda.SDPAParams(*arguments)
    return torch.backends.cuda.can_use_flash_attention(params)


def _naive(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    query, key, value = in_one_type(query, key, value)
    return naive_softmax_attention(query, key, value, scale)


def _chunked(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    operands = (t.flatten(0, 1) for t in in_one_type(query, key, value))
    out = chunked_softmax_attention(*operands, scale)
    return out.unflatten(0, query.shape[:2])


def _symmetric(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    dtype = torch.promote_types(value.dtype, torch.float32)
    operands = (t.to(dtype).flatten(0, 1) for t in (query, value))
    out = symmetric.symmetric_softmax_attention(*operands, scale)
    return out.unflatten(0, query.shape[:2])


def _fused(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Call PyTorch's fused kernel with operands that it accepts.

    The kernel requires channels that follow each other in memory. Padding
    them with zeros changes neither the logits nor the sum.
    """
    value_channels = value.shape[-1]
    sizes = _fused_sizes(query, key, value)
    operands = [
        t if t.shape[-1] == size else F.pad(t, (0, size - t.shape[-1]))
        for t, size in zip((query.to(value.dtype), key.to(value.dtype), value), sizes)
    ]
    query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in operands)
    out = F.scaled_dot_product_attention(query, key, value, scale=scale)
    return out[..., :value_channels]


def _fused_sizes(query: Tensor, key: Tensor, value: Tensor) -> list[int]:
    """Channels of the operands with padding.

    Half precision needs multiples of 8. On CPUs, and in the flash kernels of
    GPUs (up to 256 channels), all three need the same number.
    """
    sizes = [t.shape[-1] + -t.shape[-1] % 8 for t in (query, key, value)]
    if query.device.type == 'cpu' or max(sizes) <= 256:
        sizes = [max(sizes)] * 3
    return sizes


def in_one_type(*operands: Tensor) -> list[Tensor]:
    """Operands in the type of the value, on a CPU in float32 at least.

    On a GPU, half precision products sum in float32 and run on tensor cores.
    """
    dtype = operands[-1].dtype
    if operands[-1].device.type == 'cpu':
        dtype = torch.promote_types(dtype, torch.float32)
    return [t.to(dtype) for t in operands]


def _fused_obstacle(query: Tensor, key: Tensor, value: Tensor) -> str:
    if has_tangent(query, key, value):
        return 'it has no forward derivative'
    if query.device.type != 'cpu' and max(query.shape[:2]) > GRID:
        return f'a GPU takes at most {GRID} samples or heads, not {query.shape[0]}'
    return ''


def _chunked_obstacle(query: Tensor, key: Tensor, value: Tensor) -> str:
    if has_tangent(query, key, value):
        return 'it has no forward derivative'
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        return 'an exported or traced graph would contain every chunk'
    if torch.compiler.is_compiling() and query.device.type == 'cpu':
        return 'a compiled graph has it on GPUs alone'
    return ''


def _symmetric_obstacle(query: Tensor, key: Tensor, value: Tensor) -> str:
    if key is not query:
        return 'query and key are different tensors'
    return _chunked_obstacle(query, key, value)


def _map_bytes(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Bytes of an attention map in float32 at least."""
    return query.shape[:-1].numel() * key.shape[-2] * max(value.element_size(), 4)


def _fused_memory(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Copies of the operands with padding."""
    sizes = _fused_sizes(query, key, value)
    rows = [t.shape[:-1].numel() for t in (query, key, value)]
    return value.element_size() * sum(n * size for n, size in zip(rows, sizes))


def _chunked_memory(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Two buffers of weights, and gradients in float32."""
    samples, rows = chunk_rows(*(t.flatten(0, 1) for t in (query, key, value)))
    weights = 2 * samples * rows * key.shape[-2]
    return max(value.element_size(), 4) * (weights + key.numel() + value.numel())


def _symmetric_memory(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Three buffers of weights."""
    weights = 3 * symmetric.chunk_rows(query.shape[-2]) * key.shape[-2]
    return max(value.element_size(), 4) * (weights + key.numel() + value.numel())


BACKENDS = {
    # Weights, and in the backward pass their gradient and the logits'.
    'naive': Backend(_naive, lambda *_: '', lambda *t: 3 * _map_bytes(*t)),
    'fused': Backend(_fused, _fused_obstacle, _fused_memory),
    'chunked': Backend(_chunked, _chunked_obstacle, _chunked_memory),
    'symmetric': Backend(_symmetric, _symmetric_obstacle, _symmetric_memory),
}

#: Of the whole process: torch.compile cannot trace a ContextVar.
_selected: list[str] = []


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute softmax attention with one backend inside of a ``with``.

    Like ``torch.nn.attention.sdpa_kernel``, for measurements and debugging,
    and for all threads. An attention that the backend cannot compute raises a
    ``ValueError``.

    Args:
        name (str): ``'naive'``, ``'fused'``, ``'chunked'`` or
            ``'symmetric'``.

    Raises:
        ValueError: If there is no such backend.
    """
    if name not in BACKENDS:
        raise ValueError(f'the backend must be one of {list(BACKENDS)}, got {name!r}')
    _selected.append(name)
    try:
        yield
    finally:
        _selected.pop()


def explain_backend(query: Tensor, key: Tensor, value: Tensor) -> str:
    """Say how :func:`.softmax_attention` would compute an attention, and why.

    Args:
        query (Tensor): Shape ``(B, Nq, D)`` or ``(B, h, Nq, D)``.
        key (Tensor): Shape ``(B, Nk, D)`` or ``(B, h, Nk, D)``; the very
            object of the query where they are one.
        value (Tensor): Shape ``(B, Nk, Dv)`` or ``(B, h, Nk, Dv)``.

    Returns:
        str: The chosen backend and the reason; then for each of the others
        the estimated memory of training, or why it cannot run.
    """
    operands = with_heads(query, key, value)
    chosen, reason = choose(*operands)
    lines = [f'{chosen}: {reason}']
    for name, backend in BACKENDS.items():
        obstacle = backend.obstacle(*operands)
        size = f'about {backend.memory(*operands) / 2**20:.0f} MiB in training'
        lines.append(f'  {name}: {f"cannot run: {obstacle}" if obstacle else size}')
    return '\n'.join(lines)


def with_heads(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Operands as ``(B, h, N, D)``; query and key stay one tensor."""

    def reshape(tensor: Tensor) -> Tensor:
        return tensor.unsqueeze(1) if tensor.dim() == 3 else tensor.flatten(0, -4)

    first = reshape(query)
    return [first, first if key is query else reshape(key), reshape(value)]


def has_tangent(*tensors: Tensor) -> bool:
    """Whether a forward derivative is computed."""
    return any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def without_autocast(tensor: Tensor) -> AbstractContextManager:
    """A context in which autocast does not round operands."""
    if tensor.device.type == 'meta':  # autocast does not know it
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
