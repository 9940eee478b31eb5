"""nl_plugins.insert: blocks in models that are built."""

import copy

import pytest
import torch
from reference import randomize
from torch import nn

import nl_plugins
from nl_plugins import NonLocal2d

NL = 'nl_plugins.NonLocal2d'


class Block(nn.Module):
    """A residual block, as torchvision's and timm's are."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)) + x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(Block(8), Block(8))
        self.layer2 = nn.Sequential(Block(8), Block(8), Block(8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class Multiple(nn.Module):
    """Takes two inputs, and has no convolution in its first layer."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Identity()
        self.net = Net()

    def forward(self, image, *, weight):
        return self.net(self.mix(weight * image))


@pytest.fixture
def x():
    return torch.randn(2, 3, 16, 16)


def test_any_module_gets_blocks_and_keeps_its_keys(x):
    plain = Net().eval()
    model = copy.deepcopy(plain)
    same, names = nl_plugins.insert(
        model,
        [
            dict(type=NL, before='layer2.-1'),
            dict(type='nl_plugins.DisentangledNonLocal2d', after='layer1'),
        ],
    )
    assert same is model
    assert names == ['layer2.2.non_local_block', 'layer1.1.non_local_block']
    assert torch.equal(model(x), plain(x))
    result = model.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all('non_local_block' in key for key in result.missing_keys)


def test_blocks_by_name():
    blocks = dict(c2=dict(type=NL, after='layer1'), c3=None)
    _, names = nl_plugins.insert(Net(), blocks)
    assert names == ['layer1.1.non_local_block']
    with pytest.raises(ValueError, match="a list or a dict of dicts, but got 'c2'"):
        nl_plugins.insert(Net(), 'c2')


@pytest.mark.parametrize(
    'example',
    [
        dict(image=torch.zeros(1, 3, 16, 16), weight=torch.ones(1)),
        (torch.zeros(1, 3, 16, 16),),
        torch.zeros(1, 3, 16, 16),
    ],
    ids=['keywords', 'tuple', 'tensor'],
)
def test_an_example_shows_the_shapes(example):
    model = Multiple() if isinstance(example, dict) else Net()
    prefix = 'net.' if isinstance(example, dict) else ''
    state = copy.deepcopy(model.state_dict())
    _, (name,) = nl_plugins.insert(
        model, [dict(type=NL, after=f'{prefix}layer2.0')], example
    )
    assert model.get_submodule(name).in_channels == 8
    assert model.training  # and nothing has changed
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in state)


def test_an_example_that_does_not_fit_is_named():
    with pytest.raises(
        ValueError, match='Net does not run on example_input: .*channel'
    ):
        nl_plugins.insert(
            Net(), [dict(type=NL, after='layer1')], torch.zeros(1, 4, 8, 8)
        )


class DataDependent(Net):
    """Cannot run on tensors without data."""

    def forward(self, x):
        if x.sum() > 1e9:
            return x
        return super().forward(x)


def test_an_example_is_computed_where_it_must():
    blocks = [dict(type=NL, after='layer1')]
    model, (name,) = nl_plugins.insert(DataDependent(), blocks, torch.ones(1, 3, 8, 8))
    assert model.get_submodule(name).in_channels == 8
    assert 'forward' not in vars(model)  # no check is left for the first forward


def test_a_second_insertion_keeps_the_first(x):
    model = Net()
    model.init_weights = None  # a model with one
    del model.init_weights
    calls = []
    Net.init_weights = lambda self: (
        calls.append(1),
        [nn.init.ones_(p) for p in self.parameters()],
    )
    try:
        for place in 'layer1', 'layer2':
            nl_plugins.insert(model, [dict(type=NL, after=place, frozen=False)])
        model.init_weights()
    finally:
        del Net.init_weights
    assert calls == [1]
    for place in 'layer1.1', 'layer2.2':
        block = model.get_submodule(f'{place}.non_local_block')
        assert not block.conv_out.conv.weight.any()
    assert (model.stem.weight == 1).all()


def test_symbolic_trace_has_one_node_for_a_block(x):
    model, names = nl_plugins.insert(
        Net(),
        [
            dict(type=NonLocal2d, before='layer2.-1'),
            dict(type=NonLocal2d, after='stem'),
        ],
    )
    randomize(model).eval()
    traced = torch.fx.symbolic_trace(model)
    called = [node.target for node in traced.graph.nodes if node.op == 'call_module']
    assert called.count('layer2.2.non_local_block') == 1
    torch.testing.assert_close(traced(x), model(x))
    assert not torch.allclose(traced(x), Net().eval()(x))


class FrozenNet(Net):
    def __init__(self):
        super().__init__()
        self.train()

    def train(self, mode=True):
        super().train(mode)
        self.layer1.eval().requires_grad_(False)
        return self


def test_a_block_in_a_frozen_stage_can_be_trained(x):
    model, (name,) = nl_plugins.insert(
        FrozenNet(), [dict(type=NL, after='layer1.0', frozen=False)]
    )
    model = copy.deepcopy(model).train()
    block = model.get_submodule(name)
    assert block.training and all(p.requires_grad for p in block.parameters())
    assert not model.layer1[0].conv.weight.requires_grad
    model(x).sum().backward()
    # through the frozen layer after it
    assert block.conv_out.conv.weight.grad.any()
    assert model.eval() is model and not block.training


def test_a_block_can_be_frozen_anywhere():
    model, (name,) = nl_plugins.insert(
        Net(), [dict(type=NL, after='layer1.0', frozen=True)]
    )
    assert not any(p.requires_grad for p in model.get_submodule(name).parameters())


def test_a_block_in_a_frozen_stage_is_frozen_with_a_warning():
    with pytest.warns(UserWarning, match='unless it has frozen=False'):
        nl_plugins.insert(FrozenNet(), [dict(type=NL, after='layer1.0')])


def test_freeze_base_trains_the_blocks_alone(x):
    bn = dict(norm_cfg=dict(type='BN'))
    model, (first,) = nl_plugins.insert(Net(), [dict(type=NL, after='layer1.0', **bn)])
    # what an inner insertion has added is trained too
    model, (second,) = nl_plugins.insert(
        model, [dict(type=NL, after='layer2.0', **bn)], freeze_base=True
    )
    model = copy.deepcopy(model).train()
    randomize(model.get_submodule(first))
    randomize(model.get_submodule(second))
    blocks = (f'{first}.', f'{second}.')
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(x).square().sum().backward()
    optimizer.step()
    moved = {
        key for key, value in model.state_dict().items() if value.ne(before[key]).any()
    }
    # norms of the base keep their statistics, norms of blocks collect them
    assert moved and all(key.startswith(blocks) for key in moved)
    assert any('running_mean' in key for key in moved)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.startswith(blocks)
    assert model.training and not model.layer2[0].bn.training
    assert model.eval() is model and not model.get_submodule(first).training


def test_freeze_base_trains_a_block_in_a_frozen_stage(x):
    model, (name,) = nl_plugins.insert(
        FrozenNet(), [dict(type=NL, after='layer1.0', frozen=False)], freeze_base=True
    )
    block = model.train().get_submodule(name)
    assert block.training and all(p.requires_grad for p in block.parameters())
    model(x).sum().backward()
    assert block.conv_out.conv.weight.grad.any()


def test_freeze_base_without_a_block_is_refused():
    with pytest.raises(ValueError, match='Net has no block that could be trained'):
        nl_plugins.insert(Net(), [], freeze_base=True)
