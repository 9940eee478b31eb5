"""Random parameters by the names of parameters."""

import pytest
import torch
from torch import nn

from nl_plugins import NonLocal2d
from nl_plugins.analysis.random_parameters import sample_parameters


def model(*layers):
    return nn.ModuleDict(
        dict(conv=nn.Conv2d(100, 200, 1), norm=nn.BatchNorm2d(200), **dict(layers))
    )


def test_the_same_layers_get_the_same_parameters():
    plain, other = model(), model(('block', NonLocal2d(200)))
    sample_parameters(plain)
    torch.manual_seed(1)
    sample_parameters(other)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name
    x = torch.randn(1, 200, 3, 3)
    assert torch.equal(other['block'](x), x)
    assert float(plain['conv'].weight.std()) == pytest.approx(0.1, rel=0.02)
    assert not plain['conv'].bias.any() and (plain['norm'].weight == 1).all()
