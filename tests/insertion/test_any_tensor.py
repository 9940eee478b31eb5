"""Tokens, channels-last maps, several outputs, several calls per forward."""

import copy
import pickle
from typing import NamedTuple

import pytest
import torch
from reference import randomize
from torch import nn

import nl_plugins
from nl_plugins import DisentangledNonLocal1d, NonLocal1d, NonLocal2d, NonLocal3d


@pytest.mark.parametrize(
    'first, last, size',
    [
        ((NonLocal1d, 'BCN'), (NonLocal1d, 'BNC'), (12,)),
        ((DisentangledNonLocal1d, None), (DisentangledNonLocal1d, 'BNC'), (12,)),
        ((NonLocal2d, 'BCHW'), (NonLocal2d, 'BHWC'), (4, 5)),
        (
            (nl_plugins.DisentangledNonLocal2d, None),
            (nl_plugins.DisentangledNonLocal2d, 'BHWC'),
            (4, 5),
        ),
    ],
)
@pytest.mark.parametrize('options', [{}, dict(sub_sample=True, num_heads=2)])
def test_channels_last_is_the_same_attention(first, last, size, options):
    (one, order), (other, last_order) = first, last
    channels_first = randomize(one(6, layout=order, reduction=1, **options))
    channels_last = other(6, layout=last_order, reduction=1, **options)
    channels_last.load_state_dict(channels_first.state_dict())
    x = torch.randn(2, 6, *size)
    expected = channels_first(x)
    out = channels_last(x.movedim(1, -1))
    torch.testing.assert_close(out, expected.movedim(1, -1), rtol=1e-5, atol=1e-6)
    positions = torch.zeros(1, len(size), dtype=torch.long)
    for one, other in zip(
        channels_first.attention_weights(x, positions),
        channels_last.attention_weights(x.movedim(1, -1), positions),
    ):
        torch.testing.assert_close(one, other)


def test_a_layout_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match=r"one of \('BCN', 'BNC'\), but got 'BHWC'"):
        NonLocal1d(4, layout='BHWC')
    with pytest.raises(ValueError, match=r"one of \('BCTHW',\), but got 'BNC'"):
        NonLocal3d(4, layout='BNC')
    with pytest.raises(ValueError, match=r'takes \(B, N, 4\), but got \(2, 4, 9\)'):
        NonLocal1d(4, layout='BNC')(torch.randn(2, 4, 9))


class Layer(nn.Module):
    """A layer of a transformer, which returns its tokens and their sizes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, tokens, sizes):
        return self.linear(tokens), sizes


class Output(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Pair(nn.Module):
    kinds = dict(tuple=lambda *t: t, named=Output, dict=lambda a, b: dict(a=a, b=b))

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        return self.kinds[self.kind](x, 2 * x)


class Transformer(nn.Module):
    def __init__(self, kind='tuple'):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.layer = Layer()
        self.pair = Pair(kind)
        self.shared = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = self.embed(x)
        sizes = x.shape[2:]
        tokens, sizes = self.layer(x.flatten(2).transpose(1, 2), sizes)
        x = tokens.transpose(1, 2).unflatten(2, sizes)
        values = self.pair(x)
        a, b = values.values() if isinstance(values, dict) else values
        return self.shared(a) + self.shared(b)


def insert(model=None, **cfg):
    model = model or Transformer()
    cfg.setdefault('type', NonLocal1d)
    model, names = nl_plugins.insert(model, [cfg])
    return model, model.get_submodule(names[0])


@pytest.mark.parametrize(
    'cfg',
    [
        dict(after='layer', item=0, layout='BNC'),
        dict(before='layer', layout='BNC'),
        dict(after='layer.linear', layout='BNC'),
        dict(type=DisentangledNonLocal1d, after='layer', item=0, layout='BNC'),
        dict(type=NonLocal2d, after='pair', item=1),
        dict(type=NonLocal2d, after='pair', item=-1),
        dict(type=NonLocal2d, after='shared', per_call=True),
        dict(type=NonLocal2d, before='shared', per_call=True),
    ],
)
def test_a_block_works_on_the_tensor_that_is_named(cfg):
    torch.manual_seed(0)
    plain = Transformer().eval()
    model, block = insert(copy.deepcopy(plain), **cfg)
    assert block.in_channels == 8
    x = torch.randn(2, 3, 32, 24)
    assert torch.equal(model(x), plain(x))  # an identity at the start
    randomize(block)
    changed = model(x)
    assert not torch.allclose(changed, plain(x))
    changed.sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(again(x), changed)


@pytest.mark.parametrize('kind, item', [('tuple', 1), ('named', 1), ('dict', 'b')])
def test_the_rest_of_an_output_is_passed_on(kind, item):
    model = Transformer(kind).eval()
    x = torch.randn(1, 3, 16, 16)
    _, block = insert(model, type=NonLocal2d, after='pair', item=item)
    before = model.pair(model.embed(x))
    randomize(block)
    after = model.pair(model.embed(x))
    assert type(after) is type(before)
    keys = list(before) if kind == 'dict' else range(2)
    for key in keys:
        assert torch.equal(before[key], after[key]) == (key != item)


def test_calls_share_one_block():
    model, block = insert(type=NonLocal2d, after='shared', per_call=True)
    calls = []
    block.register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(1, 3, 16, 16))
    assert len(calls) == 2


@pytest.mark.parametrize(
    'cfg, words',
    [
        (
            dict(after='layer'),
            r'item=0 of the shape \(B, \.\.\., 8\), so name',
        ),
        (dict(after='layer', item=2, layout='BNC'), 'no item 2, it has 0, 1'),
        (dict(after='layer.linear', item=0), 'there is no item 0, it has none'),
        (dict(after='layer', item=0), "the second size .* layout='BNC'"),
        (dict(after='layer', item=True), 'item must be an index or a key'),
        (dict(type=NonLocal2d, after='shared'), 'runs 2 times .* per_call=True'),
        (dict(type=NonLocal2d, after='shared', per_call=2), 'must be True or False'),
        (dict(after='layer', layout='BCHW'), "one of .'BCN', 'BNC'., but got 'BCHW'"),
        (dict(type=nn.Conv2d, after='embed', layout='x'), 'layout of a Conv2d'),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(cfg, words):
    with pytest.raises(nl_plugins.errors.InsertionError, match=words):
        insert(**cfg)


def test_calls_with_other_channels_cannot_share_a_block():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 8, 1), nn.ReLU()

        def forward(self, x):
            return self.act(self.conv(self.act(x)))

    with pytest.raises(ValueError, match='different channels .*3, .* and .*8, '):
        insert(Two(), type=NonLocal2d, after='act', per_call=True)


@pytest.mark.parametrize('side', ['before', 'after'])
def test_channels_choose_the_calls_of_a_shared_block(side):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.conv2(self.relu(self.conv1(x))))

    plain = Residual()
    cfg = dict(type=NonLocal2d, per_call=True, in_channels=8, zeros_init=False, std=0.5)
    model, block = insert(copy.deepcopy(plain), **cfg, **{side: 'relu'})
    again = copy.deepcopy(model)
    x = torch.randn(2, 3, 5, 6)
    y = plain.conv2(plain.conv1(x).relu())
    expected = block(y).relu() if side == 'before' else block(y.relu())
    for copied in model, again, torch.fx.symbolic_trace(model):
        torch.testing.assert_close(copied(x), expected)
    model(x).sum().backward()
    assert block.g.conv.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match='different channels .* in_channels='):
        insert(copy.deepcopy(plain), **cfg | dict(in_channels=5), after='relu')


def test_an_item_that_is_missing_in_the_first_forward_is_named():
    class Head(nn.Module):  # runs on a list, so its calls are unknown
        def __init__(self):
            super().__init__()
            self.pair = Pair('tuple')

        def forward(self, levels):
            return self.pair(levels[0])

    for place in dict(item=2), dict(item='a'), dict():
        model = Head()
        nl_plugins.insert(
            model,
            [dict(type=NonLocal2d, in_channels=3, after='pair', **place)],
        )
        with pytest.raises(ValueError, match='returns no single tensor'):
            model([torch.randn(1, 3, 4, 4)])
