"""The sorted sums, beyond what the tests of attention.py show."""

import torch

from nl_plugins.functional.sorted_sums import (
    naive_relu_sums,
    relu_sums,
    traced_relu_sums,
)


def inputs(*lead):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(*lead, *s, generator=generator, dtype=torch.float64)
        for s in ((17,), (23,), (23, 4))
    ]


def gradients(function, operands):
    operands = [t.detach().requires_grad_() for t in operands]
    out = function(*operands)
    return [out, *torch.autograd.grad(out.square().sum(), operands)]


def test_the_form_for_graphs_is_the_same():
    expected = gradients(naive_relu_sums, inputs(2))
    for function in relu_sums, traced_relu_sums:
        torch.testing.assert_close(gradients(function, inputs(2)), expected)


def test_vmap():
    actual, expected = (
        torch.vmap(function)(*inputs(3, 2)) for function in (relu_sums, naive_relu_sums)
    )
    torch.testing.assert_close(actual, expected)


def test_hessian_by_torch_func():
    operands = inputs(1)
    actual, expected = (
        torch.func.jacrev(
            torch.func.grad(lambda a, f=function: f(a, *operands[1:]).pow(3).sum())
        )(operands[0])
        for function in (relu_sums, naive_relu_sums)
    )
    torch.testing.assert_close(actual, expected)


def test_keys_that_no_query_passes():
    query, key, value = inputs(1)
    out = relu_sums(query - 100, key, value)
    assert not out.any()


def test_empty_batch():
    operands = [t[:0].requires_grad_() for t in inputs(1)]
    relu_sums(*operands).sum().backward()
    assert operands[2].grad.shape == (0, 23, 4)
