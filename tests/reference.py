"""The formulas of the blocks, written out, and how to compare with them."""
import copy
import math
from types import MethodType

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def pairwise_weights(mode: str, query: Tensor, key: Tensor, scale: float = 1.,
                     w_f: Tensor | None = None) -> Tensor:
    """``f(x_i, x_j) / C(x)``, shape ``(B, Nq, Nk)``, the whole map."""
    if mode == 'concatenation':
        pairs = torch.cat([
            query.unsqueeze(2).expand(-1, -1, key.shape[1], -1),
            key.unsqueeze(1).expand(-1, query.shape[1], -1, -1)
        ], -1)
        return torch.relu(pairs @ w_f) / key.shape[1]
    logits = torch.einsum('bid,bjd->bij', query, key) * scale
    if mode == 'dot_product':
        return logits / key.shape[1]
    return torch.exp(logits - logits.logsumexp(2, keepdim=True))


def randomize(module: nn.Module, std: float = .3) -> nn.Module:
    """Give weights that leave no term at zero, always the same."""
    generator = torch.Generator().manual_seed(3)
    for _, parameter in sorted(module.named_parameters()):
        parameter.data.normal_(0, std, generator=generator)
    return module


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    scale = expected.abs().max().clamp(min=1e-30)
    return float((actual.double() - expected.double()).abs().max() / scale)


def output_and_gradients(module: nn.Module,
                         x: Tensor) -> dict[str, Tensor]:
    """Output and all gradients of a module under a fixed cotangent."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    # In the type of the module: in-place upstream code needs a non-leaf.
    out = module(x * 1)
    generator = torch.Generator().manual_seed(7)
    cotangent = torch.randn(
        out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    out.backward(cotangent)
    results = dict(output=out.detach(), input=x.grad)
    for name, parameter in module.named_parameters():
        results[name] = parameter.grad
    return results


def assert_same_results(actual: dict, expected: dict,
                        tolerance: float = 1e-5) -> None:
    assert actual.keys() == expected.keys()
    # A gradient that is 0 in exact arithmetic (the bias of a query under a
    # softmax over the keys) is noise on both sides; it is measured against
    # the largest gradient.
    floor = .1 * max(g.abs().max() for g in expected.values())
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
        for value in out if isinstance(out, (tuple, list)) else (out, ):
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


def _project(layer: nn.Module, x: Tensor) -> Tensor:
    """A 1 x 1 convolution and a pooling, ``(B, C, *size)`` to (B, N, C')."""
    pool = None
    if isinstance(layer, nn.Sequential):
        layer, pool = layer
    conv = getattr(layer, 'conv', layer)
    if not hasattr(conv, 'weight'):  # the Gaussian's key is pooled alone
        return conv(x).flatten(2).mT
    x = torch.einsum('oc,bcn->bon', conv.weight.flatten(1),
                     x.flatten(2)).unflatten(2, x.shape[2:])
    x = x + conv.bias.reshape(-1, *[1] * (x.dim() - 2))
    return (pool(x) if pool else x).flatten(2).mT


def _formula(block: nn.Module, x: Tensor) -> Tensor:
    terms = getattr(block, 'terms', ('pairwise', ))
    value = _project(block.g, x)
    y = 0
    if 'pairwise' in terms:
        query = key = x.flatten(2).mT
        if block.mode != 'gaussian':
            query, key = _project(block.theta, x), _project(block.phi, x)
        elif block.sub_sample:
            key = _project(block.phi, x)
        scale, w_f = 1., None
        if block.mode == 'embedded_gaussian' and block.use_scale:
            scale = 1 / math.sqrt(query.shape[2])
        if block.mode == 'concatenation':
            w_f = block.concat_project.conv.weight.flatten()
        if getattr(block, 'whiten', None):
            query = query - query.mean(1, keepdim=True)
            key = key - key.mean(1, keepdim=True)
        if 'gaussian' in block.mode:
            scale = scale / getattr(block, 'temperature', 1.)
        y = pairwise_weights(block.mode, query, key, scale, w_f) @ value
        if block.gate:
            y = block.gamma * y
    if 'unary' in terms:
        logits = _project(block.conv_mask, x)
        if block.sub_sample:
            logits = block.pool(logits.mT.unflatten(
                2, x.shape[2:])).flatten(2).mT
        weights = torch.exp(logits - logits.logsumexp(1, keepdim=True))
        y = y + (weights * value).sum(1, keepdim=True)
    y = y.expand(-1, x[0, 0].numel(), -1).mT.unflatten(2, x.shape[2:])
    if not block.gate:
        out = _project(block.conv_out, y).mT
        y = out.unflatten(2, x.shape[2:])
    return x + y
