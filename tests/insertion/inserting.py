"""Models with blocks, and modules that hold them, for the tests of this folder."""

import pickle

import torch
from torch import nn

from nl_plugins.registry import MODELS

NL = 'nl_plugins.NonLocal2d'


def build(blocks, base='ResNet', **kwargs):
    if base == 'ResNet':
        kwargs = dict(depth=18, base_channels=8, stem_channels=8) | kwargs
    return MODELS.build(
        dict(type='nl_plugins.WithBlocks', base=base, blocks=blocks, **kwargs)
    )


def image(*size):
    return torch.randn(2, 3, *size or (64, 64))


def outputs(model, x=None):
    model.eval()
    with torch.no_grad():
        out = model(image() if x is None else x)
    return out if isinstance(out, tuple) else (out,)


def assert_equal(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        assert torch.equal(a, b)


def new_keys(model, **kwargs):
    plain = build([], **kwargs)
    return {
        key.rpartition('.g.')[0]
        for key in set(model.state_dict()) - set(plain.state_dict())
    } - {''}


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def retina_head(blocks):
    return build(
        blocks, base='RetinaHead', num_classes=2, in_channels=8, feat_channels=8
    )


@MODELS.register_module()
class Shared(nn.Module):
    """Takes a list, and runs a layer twice."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(8, 8, 1)

    def forward(self, xs):
        return self.shared(self.shared(xs[0]))


@MODELS.register_module()
class Sequences(nn.Module):
    """Takes a list, so it is not seen running."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.conv = nn.Conv1d(6, 6, 1)

    def forward(self, xs):
        return self.norm(xs[0])


@MODELS.register_module()
class Oddities(nn.Module):
    """Children that cannot hold a block."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.pair = Pair()
        self.idle = nn.Conv2d(3, 4, 1)
        self.some = nn.ModuleList([nn.ReLU()])

    def forward(self, x):
        return self.pair(self.conv(x))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@MODELS.register_module()
class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.add = Add()

    def forward(self, x):
        return self.add(x, 2 * x)


class Add(nn.Module):
    def forward(self, x, y):
        return x + y


@MODELS.register_module()
class Opaque(Oddities):
    """Fails on shapes alone, as custom operators do."""

    def forward(self, x):
        assert x.device.type != 'meta'
        return super().forward(x)
