"""The blocks against mmcv's, and against the formula where mmcv is wrong."""

import pytest
import torch
from mmcv import cnn
from reference import (
    LargestTensor,
    assert_same_results,
    in_float64,
    output_and_gradients,
    pairwise_weights,
    randomize,
)

import nl_plugins
from nl_plugins.blocks.checks import MODES

SHAPES = {1: (2, 12, 21), 2: (2, 12, 7, 6), 3: (2, 12, 3, 4, 5)}


def block_of(ndim, **kwargs):
    return getattr(nl_plugins, f'NonLocal{ndim}d')(12, **kwargs)


@pytest.mark.parametrize('sub_sample', [False, True])
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('ndim', [1, 2, 3])
def test_same_results_as_mmcv(ndim, mode, sub_sample):
    kwargs = dict(mode=mode, sub_sample=sub_sample)
    upstream = randomize(getattr(cnn, f'NonLocal{ndim}d')(12, **kwargs))
    block = block_of(ndim, **kwargs)
    assert isinstance(block, type(upstream))
    block.load_state_dict(upstream.state_dict(), strict=True)
    upstream.load_state_dict(block.state_dict(), strict=True)
    x = torch.randn(SHAPES[ndim])
    if mode == 'concatenation':  # mmcv's has no backward
        with torch.no_grad():
            torch.testing.assert_close(block(x), upstream(x), rtol=1e-5, atol=1e-5)
    else:
        assert_same_results(
            output_and_gradients(block, x), output_and_gradients(upstream, x)
        )


@pytest.mark.parametrize('sub_sample', [False, True])
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('ndim', [1, 2, 3])
def test_same_layers_as_mmcv(ndim, mode, sub_sample):
    # their types, sizes and names, as other code may look them up
    kwargs = dict(mode=mode, sub_sample=sub_sample)
    upstream = getattr(cnn, f'NonLocal{ndim}d')(12, **kwargs)
    block = block_of(ndim, **kwargs)
    own = dict(block.named_modules())
    for name, layer in upstream.named_modules():
        if name:
            assert isinstance(own[name], type(layer))
        if not list(layer.children()):
            assert repr(own[name]) == repr(layer)


@pytest.mark.parametrize(
    'kwargs',
    [
        *(dict(mode=mode) for mode in MODES),
        dict(mode='concatenation', sub_sample=True),
        dict(mode='gaussian', sub_sample=True),
        dict(use_scale=False),
        dict(key_channels=3, value_channels=7),
        dict(key_channels=2, gate='scalar'),
        dict(mode='dot_product', gate='scalar', sub_sample=True),
        dict(reduction=5, conv_cfg=dict(type='Conv')),
    ],
)
@pytest.mark.parametrize('ndim', [1, 2, 3])
def test_same_results_as_the_formula(ndim, kwargs):
    if 'conv_cfg' in kwargs:
        kwargs = kwargs | dict(conv_cfg=dict(type=f'Conv{ndim}d'))
    block = randomize(block_of(ndim, **kwargs))
    x = torch.randn(SHAPES[ndim])
    assert_same_results(
        output_and_gradients(block, x),
        output_and_gradients(in_float64(block), x.double()),
    )


def test_a_norm_follows_the_output_layer_as_in_mmcv():
    kwargs = dict(norm_cfg=dict(type='BN'), zeros_init=False)
    upstream = randomize(cnn.NonLocal2d(12, **kwargs))
    block = block_of(2, **kwargs)
    block.load_state_dict(upstream.state_dict(), strict=True)
    x = torch.randn(SHAPES[2])
    assert_same_results(
        output_and_gradients(block, x), output_and_gradients(upstream, x)
    )
    torch.testing.assert_close(block.state_dict(), upstream.state_dict())


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(mode='concatenation', sub_sample=True),
        dict(norm_cfg=dict(type='BN')),
        dict(gate='scalar'),
    ],
)
def test_a_new_block_is_an_identity(kwargs):
    block = block_of(2, **kwargs)
    x = torch.randn(SHAPES[2])
    assert torch.equal(block(x), x)
    randomize(block)
    assert not torch.equal(block(x), x)
    block.init_weights()
    assert torch.equal(block(x), x)


def test_std_and_zeros_init_set_the_initial_weights():
    block = nl_plugins.NonLocal2d(256, std=0.1, zeros_init=False)
    for layer in (block.g, block.theta, block.phi, block.conv_out):
        assert abs(layer.conv.weight.std() - 0.1) < 0.005
        assert not layer.conv.bias.any()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(mode='gaussian'),
        dict(),
        dict(sub_sample=True),
        dict(key_channels=8, gate='scalar'),
        dict(mode='dot_product'),
        dict(mode='concatenation'),
    ],
)
def test_no_map_of_all_pairs_is_built(kwargs, dtype):
    # 32 channels: sizes that need no padding, which would hide the lack of
    # a contiguous layout.
    n = 32 * 32
    block = nl_plugins.NonLocal2d(32, **kwargs)
    x = torch.randn(1, 32, 32, 32, requires_grad=True)
    pairs = n * n // 4 if kwargs.get('sub_sample') else n * n
    with (
        LargestTensor() as largest,
        torch.autocast('cpu', dtype, enabled=dtype != torch.float32),
    ):
        block(x).sum().backward()
    assert largest.numel < pairs / 2


def test_the_map_of_mmcv_would_be_seen():
    x = torch.randn(1, 12, 32, 32, requires_grad=True)
    with LargestTensor() as largest:
        cnn.NonLocal2d(12)(x).sum().backward()
    assert largest.numel >= 1024**2


@pytest.mark.parametrize('mode', MODES)
def test_autocast_is_no_worse_than_mmcv(mode):
    block = randomize(block_of(2, mode=mode))
    upstream = cnn.NonLocal2d(12, mode=mode)
    upstream.load_state_dict(block.state_dict())
    x = torch.randn(2, 12, 16, 16)
    with torch.no_grad():
        expected = in_float64(block)(x.double())
        with torch.autocast('cpu', torch.bfloat16):
            actual, theirs = block(x), upstream(x)
    assert actual.dtype == theirs.dtype
    error, limit = ((t.double() - expected).abs().mean() for t in (actual, theirs))
    assert error <= 1.1 * limit


@pytest.mark.parametrize('sub_sample', [False, True])
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('ndim', [1, 2, 3])
def test_attention_weights_are_rows_of_the_map(ndim, mode, sub_sample):
    block = randomize(block_of(ndim, mode=mode, sub_sample=sub_sample))
    x = torch.randn(SHAPES[ndim])
    size = x.shape[2:]
    rows = torch.tensor([0, 3, x[0, 0].numel() - 1])
    positions = torch.stack(torch.unravel_index(rows, size), dim=1)
    weights, unary = block.attention_weights(x, positions)
    assert unary is None
    query = key = x
    if mode != 'gaussian':
        query, key = block.theta(x), block.phi(x)
    elif sub_sample:
        key = block.phi(x)
    assert weights.shape == (2, 3, *key.shape[2:])
    scale = block.key_channels**-0.5 if mode == 'embedded_gaussian' else 1.0
    w_f = None
    if mode == 'concatenation':
        w_f = block.concat_project.conv.weight.flatten()
    expected = pairwise_weights(
        mode, query.flatten(2).mT, key.flatten(2).mT, scale, w_f
    )
    torch.testing.assert_close(
        weights.flatten(2), expected[:, rows], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(mode='cosine'), "'cosine'"),
        (dict(reduction=0), 'reduction must be .* got 0'),
        (dict(reduction=True), 'reduction must be .* got True'),
        (dict(reduction='2'), "reduction must be an integer .* got '2'"),
        (dict(in_channels=64.0), 'in_channels must be an integer .* got 64.0'),
        (dict(std='small'), "std must be a number .* got 'small'"),
        (dict(norm_cfg='BN'), "norm_cfg must be a dict with a 'type', .* got 'BN'"),
        (dict(norm_cfg=dict(type='SyncBM')), "got 'SyncBM'; did you mean 'SyncBN'"),
        (dict(conv_cfg=dict(type='Conv2D')), "got 'Conv2D'; did you mean 'Conv2d'"),
        (dict(in_channels=-3), 'in_channels must be .* got -3'),
        (dict(key_channels=-1), 'key_channels must be .* got -1'),
        (dict(gate='vector'), "'vector'"),
        (dict(gate='scalar', value_channels=4), 'value_channels must be .* 4'),
        (dict(gate='scalar', norm_cfg=dict(type='BN')), 'norm_cfg must be None'),
        (dict(mode='gaussian', key_channels=4), 'key_channels must be None'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        nl_plugins.NonLocal2d(**dict(in_channels=12) | kwargs)


def test_an_unknown_argument_is_named():
    with pytest.raises(TypeError, match='redution'):
        nl_plugins.NonLocal2d(12, redution=4)


@pytest.mark.parametrize('shape', [(2, 12, 7), (2, 11, 7, 6)])
def test_wrong_input_is_named(shape):
    with pytest.raises(ValueError, match=r'takes \(B, 12, H, W\), but got'):
        block_of(2)(torch.zeros(shape))


@pytest.mark.parametrize('positions', [[[7, 0]], [[0, -1]], [0, 1]])
def test_wrong_positions_are_named(positions):
    with pytest.raises(ValueError, match='positions must have the shape'):
        block_of(2).attention_weights(torch.zeros(SHAPES[2]), torch.tensor(positions))


# Clips --------------------------------------------------------------------

AXES = [
    dict(axes='space'),
    dict(axes='time'),
    dict(axes='space', mode='concatenation', num_heads=2),
    dict(axes='time', mode='dot_product', num_heads=3),
    dict(axes='space', sub_sample=True),
    dict(axes='space', mode='gaussian', sub_sample='before'),
    dict(axes='time', sub_sample=True),
    dict(sub_sample=True, pool_size=(2, 1, 3)),
    dict(sub_sample='before', pool_size=(3, 2, 2)),
    dict(group_size=2),
    dict(group_size=1, mode='dot_product', num_heads=2),
    dict(group_size=2, mode='concatenation', sub_sample=True),
    dict(group_size=4, mode='gaussian', sub_sample='before'),
    dict(axes='time', group_size=2),
]


@pytest.mark.parametrize('name', ['NonLocal3d', 'DisentangledNonLocal3d'])
@pytest.mark.parametrize('kwargs', AXES)
def test_axes_of_clips(name, kwargs):
    block = randomize(getattr(nl_plugins, name)(12, **kwargs), 0.2)
    x = torch.randn(2, 12, 4, 3, 5)
    assert_same_results(
        output_and_gradients(block, x),
        output_and_gradients(in_float64(block), x.double()),
    )


@pytest.mark.parametrize(
    'kwargs', [dict(), dict(axes='space'), dict(axes='time'), dict(group_size=2)]
)
def test_frames_in_the_batch_are_a_clip(kwargs):
    block = randomize(nl_plugins.NonLocal3d(12, **kwargs))
    folded = nl_plugins.NonLocal3d(12, num_frames=4, **kwargs)
    folded.load_state_dict(block.state_dict())
    clips = torch.randn(2, 12, 4, 4, 5)
    images = clips.transpose(1, 2).flatten(0, 1)
    out = folded(images)
    assert out.shape == images.shape
    torch.testing.assert_close(out, block(clips).transpose(1, 2).flatten(0, 1))
    positions = torch.tensor([[2, 1, 4], [0, 3, 0]])
    torch.testing.assert_close(
        folded.attention_weights(images, positions).pairwise,
        block.attention_weights(clips, positions).pairwise,
    )


@pytest.mark.parametrize('kwargs', AXES)
def test_attention_weights_of_axes(kwargs):
    block = randomize(nl_plugins.NonLocal3d(12, **kwargs))
    with torch.no_grad():
        x = torch.randn(2, 12, 4, 4, 5)
        positions = torch.tensor([[2, 1, 4], [0, 3, 0], [2, 0, 0]])
        weights = block.attention_weights(x, positions).pairwise
    size = block.key_size(x)
    assert weights.shape == (2, 3, *size)
    outside = weights.clone()
    for index, (t, h, w) in enumerate(positions.tolist()):
        frames = block.group_size or 4
        part = slice(t // frames * frames, (t // frames + 1) * frames)
        group = dict(
            spacetime=(part,) if block.group_size else (), space=(t,), time=(part, h, w)
        )[block.axes]
        outside[(slice(None), index, *group)] = 0
    assert not outside.any()
    if 'gaussian' in block.mode:
        torch.testing.assert_close(weights.flatten(2).sum(2), torch.ones(2, 3))
    if block.num_heads == 1:
        # Applied to the value they give the output at these positions.
        source = block.pool(x) if block.sub_sample == 'before' else x
        y = torch.einsum('bqthw,bcthw->bqc', weights, block.g(source))
        y = block.conv_out(y.mT[..., None, None]).squeeze((3, 4))
        t, h, w = positions.T
        torch.testing.assert_close(
            block(x)[:, :, t, h, w], x[:, :, t, h, w] + y, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(axes='frame'), "axes must be one of .* got 'frame'"),
        (dict(num_frames=0), 'num_frames must be .* got 0'),
        (dict(num_frames=True), 'num_frames must be .* got True'),
        (dict(group_size=0), 'group_size must be .* got 0'),
        (dict(axes='space', group_size=2), 'group_size must be None, but got 2'),
        (
            dict(group_size=2, sub_sample=True, pool_size=2),
            r'must be 1 in time with group_size, but got \(2, 2, 2\)',
        ),
        (dict(axes='space', sub_sample=True, pool_size=2), r'\(2, 2, 2\)'),
        (dict(axes='time', sub_sample=True, pool_size=(2, 2, 2)), 'outside of'),
    ],
)
def test_wrong_arguments_of_clips_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        nl_plugins.NonLocal3d(12, **kwargs)


def test_a_batch_that_the_frames_do_not_divide_is_named():
    block = nl_plugins.NonLocal3d(12, num_frames=4)
    with pytest.raises(ValueError, match='C2D halves it after its first'):
        block(torch.zeros(6, 12, 5, 5))
    with pytest.raises(ValueError, match=r'\(B \* 4, 12, H, W\), but got'):
        block(torch.zeros(2, 12, 4, 5, 5))


def test_frames_that_the_groups_do_not_divide_are_named():
    block = nl_plugins.NonLocal3d(12, group_size=4)
    with pytest.raises(ValueError, match='group_size=4 .* the 6 frames'):
        block(torch.zeros(1, 12, 6, 5, 5))


def test_num_frames_in_a_frame_wise_backbone():
    model = nl_plugins.WithBlocks(
        'mmdet.ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        blocks=[dict(type='nl_plugins.NonLocal3d', num_frames=4, after='layer3')],
    )
    randomize(model.get_submodule('layer3.1').non_local_block)
    assert model(torch.randn(8, 3, 64, 64))[2].shape == (8, 32, 4, 4)
