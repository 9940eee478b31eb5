"""Random weights by the names of parameters."""

import pytest
import torch
from torch import nn

from nl_plugins import NonLocal2d
from nl_plugins.analysis.weights import draw_weights


def model(*layers):
    return nn.ModuleDict(
        dict(conv=nn.Conv2d(100, 200, 1), norm=nn.BatchNorm2d(200), **dict(layers))
    )


def test_the_same_layers_get_the_same_weights():
    plain, other = model(), model(('block', NonLocal2d(200)))
    draw_weights(plain)
    torch.manual_seed(1)
    draw_weights(other)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name
    x = torch.randn(1, 200, 3, 3)
    assert torch.equal(other['block'](x), x)
    assert float(plain['conv'].weight.std()) == pytest.approx(0.1, rel=0.02)
    assert not plain['conv'].bias.any() and (plain['norm'].weight == 1).all()


def test_blocks_may_compute_something():
    blocks = [NonLocal2d(8), NonLocal2d(8)]
    for block in blocks:
        draw_weights(block, identities=False)
    x = torch.randn(1, 8, 3, 3)
    assert not torch.allclose(blocks[0](x), x)
    assert torch.equal(blocks[0](x), blocks[1](x))
