"""Operators whose gradient is computed in a way of its own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def operator(
    forward: Callable[..., Tensor],
    gradients: Callable[..., tuple[Tensor, ...]],
    explicit: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    """Make a differentiable operator out of two functions.

    The second derivative is that of the formula as it stands. Under
    ``torch.vmap`` one more dimension becomes a larger batch.

    Args:
        forward (Callable): ``forward(*tensors, *constants)``, the result;
            every tensor has the batch as its first dimension.
        gradients (Callable): ``gradients(*tensors, out, grad, *constants)``,
            the gradients of the tensors for that of the result.
        explicit (Callable): As ``forward``, out of differentiable
            operations.

    Returns:
        Callable: As ``forward``, differentiable twice.
    """

    class Operator(torch.autograd.Function):
        @staticmethod
        def forward(*inputs: Any) -> Tensor:
            return forward(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
            tensors, ctx.constants = _split(inputs)
            ctx.save_for_backward(*tensors, output)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            found = Gradients.apply(*ctx.saved_tensors, grad, *ctx.constants)
            return *found, *[None] * len(ctx.constants)

        @staticmethod
        def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple:
            out, lead = _fold(Operator, info, in_dims, inputs)
            return out.unflatten(0, lead), 0

    class Gradients(torch.autograd.Function):
        # A function of its own, so that a first derivative is the same
        # whether or not it will be differentiated.

        @staticmethod
        def forward(*inputs: Any) -> tuple[Tensor, ...]:
            return gradients(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
            (*tensors, _, grad), ctx.constants = _split(inputs)
            ctx.save_for_backward(*tensors, grad)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:

            def first(*tensors: Tensor) -> tuple[Tensor, ...]:
                *operands, grad = tensors
                _, pullback = torch.func.vjp(
                    lambda *t: explicit(*t, *ctx.constants), *operands
                )
                return pullback(grad)

            _, pullback = torch.func.vjp(first, *ctx.saved_tensors)
            *found, grad = pullback(grads)
            # The result follows from the operands: no gradient of its own.
            return *found, None, grad, *[None] * len(ctx.constants)

        @staticmethod
        def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple:
            out, lead = _fold(Gradients, info, in_dims, inputs)
            return tuple(t.unflatten(0, lead) for t in out), (0,) * len(out)

    return Operator.apply


def _split(inputs: tuple) -> tuple[list[Tensor], list[Any]]:
    """Tensors and constants."""
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    return tensors, list(inputs[len(tensors) :])


def _fold(
    function: type, info: Any, in_dims: tuple, inputs: tuple
) -> tuple[Any, torch.Size]:
    """Apply a function to a batch with one more dimension in it."""
    tensors, constants = _split(inputs)
    tensors = [
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, in_dims)
    ]
    out = function.apply(*(t.flatten(0, 1) for t in tensors), *constants)
    return out, tensors[0].shape[:2]
