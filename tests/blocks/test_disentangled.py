"""The blocks against mmseg's, and against the formula where mmseg is wrong."""

import pytest
import torch
from mmcv import cnn
from mmseg.models.decode_heads.dnl_head import (
    DisentangledNonLocal2d as MMSegDisentangledNonLocal2d,
)
from reference import (
    LargestTensor,
    assert_same_results,
    in_float64,
    output_and_gradients,
    randomize,
)

import nl_plugins
from nl_plugins import DisentangledNonLocal2d
from nl_plugins.blocks import whitening
from nl_plugins.blocks.checks import MODES

SHAPES = {1: (2, 12, 21), 2: (2, 12, 7, 6), 3: (2, 12, 3, 4, 5)}


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(temperature=0.05),
        dict(temperature=1.0, use_scale=False),
        dict(temperature=0.05, mode='dot_product'),
    ],
)
def test_same_results_as_mmseg(kwargs):
    upstream = randomize(MMSegDisentangledNonLocal2d(12, **kwargs), std=0.2)
    block = DisentangledNonLocal2d(12, **kwargs)
    assert isinstance(block, cnn.NonLocal2d)
    block.load_state_dict(upstream.state_dict(), strict=True)
    upstream.load_state_dict(block.state_dict(), strict=True)
    x = torch.randn(SHAPES[2])
    assert_same_results(
        output_and_gradients(block, x), output_and_gradients(upstream, x)
    )


@pytest.mark.parametrize(
    'kwargs',
    [
        *(dict(mode=mode, temperature=0.5) for mode in MODES),
        dict(temperature=0.05),
        dict(sub_sample=True),
        dict(terms=('pairwise',)),
        dict(terms=('unary',)),
        dict(terms=('unary',), mode='gaussian', sub_sample=True),
        dict(whiten=None, temperature=1.0),
        dict(reduction=4, gate='scalar'),
    ],
)
@pytest.mark.parametrize('ndim', [1, 2, 3])
def test_same_results_as_the_formula(ndim, kwargs):
    block = getattr(nl_plugins, f'DisentangledNonLocal{ndim}d')(12, **kwargs)
    randomize(block, std=0.2)
    x = torch.randn(SHAPES[ndim])
    assert_same_results(
        output_and_gradients(block, x),
        output_and_gradients(in_float64(block), x.double()),
    )


@pytest.mark.parametrize('mode', MODES)
def test_the_input_is_left_alone(mode):
    block = randomize(DisentangledNonLocal2d(12, mode=mode))
    x = torch.randn(SHAPES[2])
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


def test_the_split_of_the_softmax():
    """softmax(q.k) is softmax(whitened pairwise + mean query . k)."""
    query, key = torch.randn(2, 3, 10, 4, dtype=torch.float64)
    query = query + 1
    mean = query.mean(1, keepdim=True)
    whitened = (query - mean) @ (key - key.mean(1, keepdim=True)).mT
    torch.testing.assert_close(
        (whitened + mean @ key.mT).softmax(2), (query @ key.mT).softmax(2)
    )


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(num_heads=2),
        dict(mode='gaussian'),
        dict(share_query_key=True, sub_sample=True),
    ],
)
@pytest.mark.parametrize('ndim', [1, 2, 3])
def test_coupled_and_shared_is_the_plain_block(ndim, kwargs):
    """The derivation: with one softmax the split is only another form."""
    block = randomize(
        getattr(nl_plugins, f'DisentangledNonLocal{ndim}d')(
            12, coupling='mul', unary='shared', temperature=1.0, **kwargs
        )
    )
    plain = getattr(nl_plugins, f'NonLocal{ndim}d')(12, **kwargs)
    plain.load_state_dict(block.state_dict(), strict=True)
    x = torch.randn(SHAPES[ndim])
    assert_same_results(output_and_gradients(block, x), output_and_gradients(plain, x))


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(gate='scalar'),
        dict(coupling='mul', gate='scalar'),
        dict(unary='shared'),
        dict(coupling='mul', unary='shared', num_heads=2),
        dict(terms=('unary',)),
        dict(terms=('pairwise',), gate='scalar'),
        dict(norm_cfg=dict(type='BN')),
    ],
)
def test_a_new_block_is_an_identity_and_learns(kwargs):
    block = DisentangledNonLocal2d(12, **kwargs)
    x = torch.randn(SHAPES[2])
    assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    target = torch.randn(SHAPES[2])
    for _ in range(4):
        optimizer.zero_grad()
        (block(x) - target).square().mean().backward()
        optimizer.step()
    # Nothing is stuck at zero, but for the biases that shift all logits of a
    # softmax alike.
    without_effect = ('theta.conv.bias', 'phi.conv.bias', 'conv_mask.bias')
    for name, parameter in block.named_parameters():
        if name not in without_effect:
            assert parameter.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize(
    'kwargs',
    [dict(), dict(gate='scalar'), dict(mode='gaussian'), dict(terms=('unary',))],
)
def test_no_map_of_all_pairs_is_built(kwargs):
    x = torch.randn(1, 32, 32, 32, requires_grad=True)
    with LargestTensor() as largest:
        DisentangledNonLocal2d(32, **kwargs)(x).sum().backward()
    assert largest.numel < 1024**2 / 2


@pytest.mark.parametrize('sub_sample', [False, True])
def test_attention_weights(sub_sample):
    block = randomize(DisentangledNonLocal2d(12, sub_sample=sub_sample), 0.2)
    x = torch.randn(SHAPES[2])
    pairwise, unary = block.attention_weights(x, torch.tensor([[1, 2]]))
    size = (3, 3) if sub_sample else (7, 6)
    assert pairwise.shape == (2, 1, *size) and unary.shape == (2, *size)
    # Both weights applied to the value give the output at that position.
    value = block.g(x)
    y = torch.einsum('bhw,bchw->bc', pairwise[:, 0] + unary, value)
    expected = x + block.conv_out(y[..., None, None].expand(-1, -1, 7, 6))
    torch.testing.assert_close(
        block(x)[..., 1, 2], expected[..., 1, 2], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('whiten', ['channel', 'layer'])
def test_whitened_tokens_have_no_mean_and_the_deviation_of_one(whiten):
    tokens = 3 * torch.randn(2, 3, 50, 4, dtype=torch.float64) + 5
    dims = 2 if whiten == 'channel' else (1, 2, 3)
    for kind, deviation in ((whiten, tokens.std(dims)), (f'{whiten}_std', 1)):
        actual = whitening.whiten(tokens, kind)
        assert actual.mean(dims).abs().max() < 1e-12
        std = actual.std(dims)
        torch.testing.assert_close(std, deviation + 0 * std, rtol=1e-5, atol=0)


@pytest.mark.parametrize('whiten', ['channel_std', 'layer_std'])
def test_whitening_of_large_half_precision_and_of_one_position(whiten):
    tokens = 400 * torch.randn(1, 1, 60, 4)
    actual = whitening.whiten(tokens.half(), whiten)
    assert actual.dtype == torch.float16
    torch.testing.assert_close(
        actual.float(), whitening.whiten(tokens, whiten), rtol=1e-2, atol=1e-2
    )
    block = randomize(DisentangledNonLocal2d(12, whiten=whiten))
    assert block(torch.randn(2, 12, 1, 1)).isfinite().all()


def test_a_learned_temperature_starts_at_the_fixed_one():
    kwargs = dict(temperature=0.3, share_query_key=True)
    block = DisentangledNonLocal2d(12, learn_temperature=True, **kwargs)
    randomize(block).init_weights()
    randomize(block.theta)
    plain = DisentangledNonLocal2d(12, **kwargs)
    state = block.state_dict()
    torch.testing.assert_close(state.pop('log_temperature').exp(), torch.tensor([0.3]))
    plain.load_state_dict(state, strict=True)
    x = torch.randn(SHAPES[2])
    positions = torch.tensor([[1, 2]])
    for actual, expected in (
        (block(x), plain(x)),
        (
            block.attention_weights(x, positions).pairwise,
            plain.attention_weights(x, positions).pairwise,
        ),
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_learned_temperature_is_independent_of_its_initial_value():
    block = randomize(DisentangledNonLocal2d(12, learn_temperature=True), 0.2)
    other = DisentangledNonLocal2d(12, learn_temperature=True, temperature=2.0)
    other.load_state_dict(block.state_dict())
    x = torch.randn(SHAPES[2])
    torch.testing.assert_close(block(x), other(x), rtol=1e-5, atol=1e-6)


def test_attention_weights_name_the_missing_term():
    x = torch.randn(SHAPES[2])
    position = torch.tensor([[1, 2]])
    for term in ('pairwise', 'unary'):
        block = DisentangledNonLocal2d(12, terms=(term,))
        weights = block.attention_weights(x, position)
        for name, weight in weights._asdict().items():
            assert (weight is None) == (name != term)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(unary='shared'),
        dict(num_heads=3),
        dict(axes='space'),
        dict(axes='time', unary='shared'),
        dict(group_size=2),
        dict(sub_sample='before', pool_size=(1, 3, 2)),
    ],
)
def test_attention_weights_of_both_terms_give_the_output(kwargs):
    block = randomize(nl_plugins.DisentangledNonLocal3d(12, **kwargs), 0.2)
    x = torch.randn(2, 12, 4, 4, 5)
    positions = torch.tensor([[2, 1, 4], [0, 3, 0]])
    pairwise, unary = block.attention_weights(x, positions)
    assert pairwise.shape[2:] == unary.shape[1:]
    axes = kwargs.get('axes')
    total = torch.ones(2, *{'space': (4,), 'time': (4, 5)}.get(axes, ()))
    dims = {'space': (2, 3), 'time': 1}.get(axes, (1, 2, 3))
    # one softmax for each group
    total *= 4 // kwargs.get('group_size', 4)
    torch.testing.assert_close(unary.sum(dim=dims), total)
    if block.num_heads > 1:
        return
    value = block.g(block.pool(x) if block.sub_sample else x)
    for q, (t, h, w) in enumerate(positions.tolist()):
        # Its own group alone counts.
        mask = torch.zeros_like(unary)
        mask[
            (slice(None), *dict(space=(t,), time=(slice(None), h, w)).get(axes, ()))
        ] = 1
        if 'group_size' in kwargs:
            first = t // 2 * 2
            mask[:, :first] = mask[:, first + 2 :] = 0
        y = torch.einsum('bthw,bcthw->bc', pairwise[:, q] + unary * mask, value)
        expected = x[..., t, h, w] + block.conv_out(y[..., None, None, None]).flatten(1)
        torch.testing.assert_close(
            block(x)[..., t, h, w], expected, rtol=1e-4, atol=1e-5
        )


def test_attention_weights_of_coupled_terms_are_one_map():
    block = randomize(DisentangledNonLocal2d(12, coupling='mul'), 0.2)
    x = torch.randn(SHAPES[2])
    pairwise, unary = block.attention_weights(x, torch.tensor([[1, 2]]))
    assert unary is None
    torch.testing.assert_close(pairwise.sum((2, 3)), torch.ones(2, 1))
    y = torch.einsum('bhw,bchw->bc', pairwise[:, 0], block.g(x))
    expected = x[..., 1, 2] + block.conv_out(y[..., None, None]).flatten(1)
    torch.testing.assert_close(block(x)[..., 1, 2], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(temperature=0), 'temperature must be a number greater than 0, but got 0'),
        (dict(temperature='low'), "temperature must be a number .* got 'low'"),
        (dict(terms=('binary',)), 'binary'),
        (dict(terms=()), r'but got \(\)'),
        (dict(terms='unary'), "but got 'unary'"),
        (dict(whiten='batch'), "'batch'"),
        (dict(learn_temperature=True, mode='dot_product'), "mode='dot_product'"),
        (dict(learn_temperature=True, terms=('unary',)), r"terms=\('unary',\)"),
        (dict(positional_encoding='sine', terms=('unary',)), 'must be None'),
        (dict(terms=('unary',), gate='scalar'), "got 'scalar'"),
        (dict(coupling='sub'), "coupling must be .* 'sub'"),
        (dict(unary='none'), "unary must be .* 'none'"),
        (dict(coupling='mul', terms=('unary',)), r"terms=\('unary',\)"),
        (dict(coupling='mul', mode='dot_product'), "mode='dot_product'"),
        (dict(unary='shared', terms=('pairwise',)), r"terms=\('pairwise',\)"),
        (dict(unary='shared', mode='concatenation'), "mode='concatenation'"),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DisentangledNonLocal2d(12, **kwargs)
