"""Blocks on a GPU equal the formulas in float64 on the CPU."""

import pytest
import torch
from reference import (
    assert_same_results,
    in_float64,
    output_and_gradients,
    randomize,
    relative_error,
)

import nl_plugins
from nl_plugins.blocks.checks import MODES

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize('size', [(8, 9), (48, 64)])
@pytest.mark.parametrize('mode', [*MODES, 'disentangled'])
def test_a_block_equals_its_formula(mode, size, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    if mode == 'disentangled':
        block = nl_plugins.DisentangledNonLocal2d(24)
    else:
        block = nl_plugins.NonLocal2d(24, mode=mode)
    randomize(block)
    x = torch.randn(2, 24, *size)
    expected = output_and_gradients(in_float64(block), x.double())
    actual = output_and_gradients(block.cuda(), x.cuda())
    actual = {name: value.cpu() for name, value in actual.items()}
    assert_same_results(actual, expected, 1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    block = randomize(nl_plugins.NonLocal2d(24)).cuda()
    x = torch.randn(2, 24, 48, 64)
    expected = block(x.cuda())
    with torch.autocast('cuda', dtype):
        actual = block(x.cuda())
    assert relative_error(actual, expected) < 2e-2
