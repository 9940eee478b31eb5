"""The formulas of the blocks, written out, and how to compare with them."""

import copy
import math
import re
from types import MethodType

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def pairwise_weights(
    mode: str, query: Tensor, key: Tensor, scale: float = 1.0, w_f: Tensor | None = None
) -> Tensor:
    """``f(x_i, x_j) / C(x)``, shape ``(B, Nq, Nk)``, the whole map."""
    if mode == 'concatenation':
        pairs = torch.cat(
            [
                query.unsqueeze(2).expand(-1, -1, key.shape[1], -1),
                key.unsqueeze(1).expand(-1, query.shape[1], -1, -1),
            ],
            -1,
        )
        return torch.relu(pairs @ w_f) / key.shape[1]
    logits = torch.einsum('bid,bjd->bij', query, key) * scale
    if mode == 'dot_product':
        return logits / key.shape[1]
    return torch.exp(logits - logits.logsumexp(2, keepdim=True))


def randomize(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Give weights that leave no term at zero, always the same."""
    generator = torch.Generator().manual_seed(3)
    for _, parameter in sorted(module.named_parameters()):
        parameter.data.normal_(0, std, generator=generator)
    return module


def randomize_all(network: nn.Module, attention: float = 0.3) -> nn.Module:
    """Give parameters and statistics of a usual size, always the same.

    ``attention`` is the gain of queries and keys, by the names that released
    checkpoints give them.
    """
    generator = torch.Generator().manual_seed(3)
    for name, value in sorted(network.state_dict().items()):
        if value.dim() > 1:
            gain = attention if re.search('theta|phi|query|key', name) else 1
            std = gain / value[0].numel() ** 0.5
            value.normal_(0, std, generator=generator)
        elif name.endswith(('running_var', 'weight', 'gamma')):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point():
            value.normal_(0, 0.1, generator=generator)
    return network


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    scale = expected.abs().max().clamp(min=1e-30)
    return float((actual.double() - expected.double()).abs().max() / scale)


def output_and_gradients(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output and all gradients of a module under a fixed cotangent."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    # In the type of the module: in-place upstream code needs a non-leaf.
    out = module(x * 1)
    generator = torch.Generator().manual_seed(7)
    cotangent = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    out.backward(cotangent.to(out))
    results = dict(output=out.detach(), input=x.grad)
    for name, parameter in module.named_parameters():
        results[name] = parameter.grad
    return results


def assert_same_results(actual: dict, expected: dict, tolerance: float = 1e-5) -> None:
    assert actual.keys() == expected.keys()
    # A gradient that is 0 in exact arithmetic (the bias of a query under a
    # softmax over the keys) is noise on both sides; it is measured against
    # the largest gradient.
    floor = 0.1 * max(g.abs().max() for g in expected.values())
    for name, value in expected.items():
        error = (actual[name].double() - value.double()).abs().max()
        error = float(error / max(value.abs().max(), floor))
        assert error < tolerance, f'{name}: relative error {error:.1e}'


class LargestTensor(TorchDispatchMode):
    """Record the largest tensor that any operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, Tensor):
                # The storage: an expanded view takes no memory.
                size = value.untyped_storage().nbytes() // value.itemsize
                self.numel = max(self.numel, size)
        return out


def in_float64(block: nn.Module) -> nn.Module:
    """A copy of one of our blocks that computes its formula, written out."""
    block = copy.deepcopy(block).double()
    block.forward = MethodType(_formula, block)
    return block


def _convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """A 1 x 1 convolution with its norms, alone or as the first of a Sequential."""
    if isinstance(layer, nn.Sequential):
        layer = layer[0]
    conv = getattr(layer, 'conv', layer)
    weight = conv.weight.flatten(1)
    if getattr(layer, 'with_spectral_norm', False):
        weight = _spectral_norm(weight, layer.u, layer.training)
    out = torch.einsum('oc,bcn->bon', weight, x.flatten(2))
    if conv.bias is not None:
        out = out + conv.bias[:, None]
    if getattr(layer, 'with_norm', False):
        out = _batch_norm(out, layer.norm)
    if getattr(layer, 'with_activation', False):
        out = torch.where(out > 0, out, layer.activate.negative_slope * out)
    return out.unflatten(2, x.shape[2:])


def _spectral_norm(weight: Tensor, u: Tensor, training: bool) -> Tensor:
    """The weight over its largest singular value, of one power iteration."""
    with torch.no_grad():
        if training:
            u = weight @ (weight.T @ u)
            u = u / u.norm()
        v = weight.T @ u
        v = v / v.norm()
    return weight / (u @ weight @ v)


def _batch_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """The norm of features ``(B, C, N)``."""
    if norm.training:
        mean, var = x.mean((0, 2)), x.var((0, 2), correction=0)
    else:
        mean, var = norm.running_mean, norm.running_var
    x = (x - mean[:, None]) / (var[:, None] + norm.eps).sqrt()
    return norm.weight[:, None] * x + norm.bias[:, None]


def _sines(x: Tensor) -> Tensor:
    """Sines and cosines of the coordinates, by loops over axes and channels."""
    channels, size = x.shape[1], x.shape[2:]
    encoding = torch.zeros(channels, *size, dtype=x.dtype)
    for axis, length in enumerate(size):
        is_time = len(size) == 3 and axis == 0
        width = channels if len(size) == 1 or is_time else channels // 2
        first = width if len(size) > 1 and axis == len(size) - 1 else 0
        steps = 2 * math.pi * torch.arange(1, length + 1, dtype=x.dtype)
        steps = steps / (length + 1e-6)
        for channel in range(width):
            angle = steps / 10000 ** (channel // 2 * 2 / width)
            values = angle.cos() if channel % 2 else angle.sin()
            shape = [-1 if d == axis else 1 for d in range(len(size))]
            encoding[first + channel] += values.reshape(shape)
    return encoding


def _pool(x: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """The maximum over windows that do not overlap."""
    for dim, k in enumerate(kernel, start=2):
        x = x.narrow(dim, 0, x.shape[dim] // k * k)
        x = x.unflatten(dim, (-1, k)).amax(dim + 1)
    return x


def _groups(block: nn.Module, size: tuple[int, ...]) -> list[tuple]:
    """Index of the positions that attend to each other, for each group."""
    every = slice(None)
    axes = getattr(block, 'axes', 'spacetime')
    if axes == 'space':
        return [(every, every, t) for t in range(size[0])]
    frames = getattr(block, 'group_size', None) or size[0]
    parts = [slice(t, t + frames) for t in range(0, size[0], frames)]
    if axes == 'time':
        return [
            (every, every, part, h, w)
            for part in parts
            for h in range(size[1])
            for w in range(size[2])
        ]
    if len(parts) > 1:
        return [(every, every, part) for part in parts]
    return [()]


def _formula(block: nn.Module, x: Tensor) -> Tensor:
    """Every option of the blocks, by loops over samples, groups and heads."""
    if getattr(block, 'num_frames', None) and x.dim() == 4:
        clips = x.unflatten(0, (-1, block.num_frames)).transpose(1, 2)
        return _formula(block, clips).transpose(1, 2).flatten(0, 1)
    source = x
    if block.sub_sample == 'before':
        source = _pool(x, block.pool_size)
    located, located_source = x, source
    if block.positional_encoding:
        located, located_source = (t + _sines(t) for t in (x, source))
    layers = dict(
        query=(getattr(block, 'theta', None), located),
        key=(
            getattr(block, 'theta' if block.share_query_key else 'phi', None),
            located_source,
        ),
        value=(block.g, source),
        mask=(getattr(block, 'conv_mask', None), source),
    )
    parts = {}
    for name, (layer, features) in layers.items():
        if block.mode == 'gaussian' and name in ('query', 'key'):
            parts[name] = features
        elif layer is not None:
            parts[name] = _convolve(layer, features)
        if name != 'query' and block.sub_sample is True and name in parts:
            parts[name] = _pool(parts[name], block.pool_size)
    size = x.shape[2:]
    y = x.new_zeros(len(x), block.value_channels, *size)
    for b in range(len(x)):
        for group in _groups(block, size):
            tokens = {
                name: part[b][(slice(None), *group[2:])].flatten(1).T
                for name, part in parts.items()
            }
            place = y[b][(slice(None), *group[2:])]
            place.copy_(
                _attend(block, **tokens)
                .expand(place[0].numel(), -1)
                .T.reshape(place.shape)
            )
    if block.output_layer:
        y = _convolve(block.conv_out, y)
    return x + y


def _attend(
    block: nn.Module,
    value: Tensor,
    query: Tensor | None = None,
    key: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """What the tokens of one group attend to, ``(N, C)`` each."""
    terms = getattr(block, 'terms', ('pairwise',))
    softmax = 'gaussian' in block.mode
    heads = block.num_heads
    scale = 1.0
    if block.mode == 'embedded_gaussian' and block.use_scale:
        scale = 1 / math.sqrt(block.key_channels / heads)
    mean, centred = None, (query, key)
    if query is not None:
        mean = query.mean(0)
        whiten = getattr(block, 'whiten', None)
        if whiten == 'channel':
            centred = [t - t.mean(0) for t in centred]
        if whiten == 'layer':
            centred = [t - t.mean() for t in centred]
        if whiten == 'channel_std':
            centred = [(t - t.mean(0)) / (t.var(0) + 1e-5).sqrt() for t in centred]
        if whiten == 'layer_std':
            centred = [(t - t.mean()) / (t.var() + 1e-5).sqrt() for t in centred]
    outputs = []
    for h in range(heads):

        def part(t, h=h):
            width = t.shape[-1] // heads
            return t[..., h * width : (h + 1) * width]

        logits = None
        if 'unary' in terms:
            logits = (
                mask[:, 0] if mask is not None else (scale * part(key) @ part(mean))
            )
        out = 0
        if 'pairwise' in terms:
            q, k = (part(t)[None] for t in centred)
            w_f = None
            if block.mode == 'concatenation':
                w_f = torch.cat(
                    [
                        part(w)
                        for w in block.concat_project.conv.weight.flatten().chunk(2)
                    ]
                )
            factor = scale
            if softmax:
                factor = scale / getattr(block, 'temperature', 1.0)
                if getattr(block, 'learn_temperature', False):
                    factor = scale / torch.exp(block.log_temperature)
            if getattr(block, 'coupling', 'add') == 'mul':
                weights = torch.exp(factor * q[0] @ k[0].T + logits)
                weights, logits = weights / weights.sum(1, keepdim=True), None
            else:
                weights = pairwise_weights(block.mode, q, k, factor, w_f)[0]
            out = weights @ part(value)
            if block.gate:
                out = block.gamma * out
        if logits is not None:
            weights = torch.exp(logits - logits.logsumexp(0))
            out = out + (weights[:, None] * part(value)).sum(0, keepdim=True)
        outputs.append(out)
    return torch.cat(outputs, dim=1)
