"""What all blocks share: every option against the formula, in float64."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv import cnn
from reference import (
    assert_same_results,
    in_float64,
    output_and_gradients,
    randomize,
)
from torch import nn
from torch.nn.utils import parametrizations

import nl_plugins
from nl_plugins.blocks.checks import MODES
from nl_plugins.blocks.sine_encoding import with_sine_encoding

NORM = dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU'))
PROJECTIONS = ('query', 'key', 'value', 'output')
#: The systems of the literature as configs, for 24 channels.
SYSTEMS = {
    'non-local, gaussian': ('NonLocal', dict(mode='gaussian')),
    'non-local, embedded gaussian': ('NonLocal', dict()),
    'non-local, dot product': ('NonLocal', dict(mode='dot_product')),
    'non-local, concatenation': ('NonLocal', dict(mode='concatenation')),
    'sub-sampled as in the paper': ('NonLocal', dict(sub_sample=True)),
    'sub-sampled as in the video code': ('NonLocal', dict(sub_sample='before')),
    'SAGAN': ('NonLocal', dict(key_channels=3, use_scale=False, gate='scalar')),
    'SAGAN, code': (
        'NonLocal',
        dict(
            key_channels=3,
            value_channels=12,
            use_scale=False,
            gate='scalar',
            output_layer=True,
            sub_sample=True,
            projection_cfg={
                name: dict(bias=False, with_spectral_norm=True) for name in PROJECTIONS
            },
        ),
    ),
    'OCNet': (
        'NonLocal',
        dict(share_query_key=True, key_channels=12, value_channels=6),
    ),
    'OCNet, with its norm': (
        'NonLocal',
        dict(share_query_key=True, projection_cfg=dict(query=NORM)),
    ),
    'multi-head': ('NonLocal', dict(num_heads=4)),
    'whitened pairwise': ('DisentangledNonLocal', dict(terms=('pairwise',))),
    'unary': ('DisentangledNonLocal', dict(terms=('unary',))),
    'disentangled': ('DisentangledNonLocal', dict()),
    'disentangled, detection': (
        'DisentangledNonLocal',
        dict(key_channels=6, gate='scalar'),
    ),
    'disentangled, segmentation': (
        'DisentangledNonLocal',
        dict(
            whiten='layer',
            use_scale=False,
            temperature=1.0,
            gate='scalar',
            projection_cfg=dict(value=dict(bias=False)),
        ),
    ),
    'simplified': ('DisentangledNonLocal', dict(terms=('unary',), output_layer=False)),
    'disentangled, layer': ('DisentangledNonLocal', dict(whiten='layer')),
    'whitened by the standard deviation': (
        'DisentangledNonLocal',
        dict(whiten='channel_std', use_scale=False, temperature=1.0, gate='scalar'),
    ),
    'whitened by the standard deviation, layer': (
        'DisentangledNonLocal',
        dict(whiten='layer_std', use_scale=False, temperature=1.0, gate='scalar'),
    ),
    'learned temperature': ('DisentangledNonLocal', dict(learn_temperature=True)),
    'sine encoding': ('NonLocal', dict(positional_encoding='sine')),
    'coupled, shared': ('DisentangledNonLocal', dict(coupling='mul', unary='shared')),
    'coupled, separate': ('DisentangledNonLocal', dict(coupling='mul')),
    'added, shared': ('DisentangledNonLocal', dict(unary='shared')),
}
#: Combinations of what the systems do not combine.
COMBINATIONS = [
    ('NonLocal', dict(mode=mode, sub_sample=order, num_heads=2))
    for mode in MODES
    for order in (True, 'before')
] + [
    ('NonLocal', dict(share_query_key=True, sub_sample=True)),
    ('NonLocal', dict(share_query_key=True, sub_sample='before', mode='concatenation')),
    ('NonLocal', dict(sub_sample=True, pool_size=3)),
    *(
        (
            'DisentangledNonLocal',
            dict(coupling=coupling, unary=unary, num_heads=3, temperature=0.5),
        )
        for coupling in ('add', 'mul')
        for unary in ('separate', 'shared')
    ),
    (
        'DisentangledNonLocal',
        dict(sub_sample='before', unary='shared', mode='gaussian', temperature=4.0),
    ),
    ('DisentangledNonLocal', dict(sub_sample=True, coupling='mul', gate='scalar')),
    ('DisentangledNonLocal', dict(terms=('unary',), unary='shared')),
    ('NonLocal', dict(output_layer=False, num_heads=2)),
    ('DisentangledNonLocal', dict(gate='scalar', output_layer=True, temperature=0.5)),
    *(
        (
            'DisentangledNonLocal',
            dict(
                whiten=whiten,
                temperature=1.0,
                share_query_key=whiten == 'channel_std',
                sub_sample=sub_sample,
                learn_temperature=sub_sample,
                coupling='mul' if sub_sample else 'add',
                unary='shared',
                num_heads=3,
            ),
        )
        for whiten in ('channel_std', 'layer_std')
        for sub_sample in (False, True)
    ),
    *(
        ('NonLocal', dict(mode=mode, sub_sample=order, positional_encoding='sine'))
        for mode, order in zip(MODES, (True, False, 'before', 'before'))
    ),
    (
        'DisentangledNonLocal',
        dict(
            positional_encoding='sine',
            mode='gaussian',
            sub_sample='before',
            temperature=4.0,
        ),
    ),
    ('NonLocal', dict(positional_encoding='sine', share_query_key=True)),
    ('NonLocal', dict(projection_cfg=dict(query=NORM, key=NORM), sub_sample='before')),
    (
        'NonLocal',
        dict(
            projection_cfg=dict(
                query=dict(act_cfg=dict(type='LeakyReLU', negative_slope=0.2)),
                key=dict(bias=False),
            )
        ),
    ),
    ('NonLocal', dict(projection_cfg={name: dict(bias=False) for name in PROJECTIONS})),
    (
        'DisentangledNonLocal',
        dict(unary='shared', mode='dot_product', whiten='layer', share_query_key=True),
    ),
]
SHAPES = {1: (2, 24, 13), 2: (2, 24, 5, 6), 3: (2, 24, 3, 4, 5)}


def of_dimension(cfg, ndim):
    """The config with the batch norm of this number of dimensions."""
    if isinstance(cfg, dict):
        return {key: of_dimension(value, ndim) for key, value in cfg.items()}
    return f'BN{ndim}d' if cfg == 'BN' else cfg


def build(name, ndim, channels=24, **kwargs):
    kwargs = of_dimension(kwargs, ndim)
    block = getattr(nl_plugins, f'{name}{ndim}d')(channels, **kwargs)
    return randomize(block, 0.2)


def check(block, x, tolerance=1e-5):
    # First, since a step of spectral norm changes the block.
    expected = output_and_gradients(in_float64(block), x.double())
    assert_same_results(output_and_gradients(block, x), expected, tolerance)


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize('system', SYSTEMS)
def test_systems_of_the_literature(system, ndim):
    name, kwargs = SYSTEMS[system]
    check(build(name, ndim, **kwargs), torch.randn(SHAPES[ndim]))


@pytest.mark.parametrize('ndim', [1, 2, 3])
@pytest.mark.parametrize('name, kwargs', COMBINATIONS)
def test_combinations_of_options(name, kwargs, ndim):
    if isinstance(kwargs.get('pool_size'), int) and ndim == 3:
        kwargs = kwargs | dict(pool_size=(3, 1, 2))
    check(build(name, ndim, **kwargs), torch.randn(SHAPES[ndim]))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3),
    st.integers(1, 5).map(lambda n: 2 * n),
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.sampled_from(
        [
            dict(),
            dict(mode='gaussian'),
            dict(mode='dot_product'),
            dict(mode='concatenation'),
            dict(num_heads=2, reduction=1),
        ]
    ),
    st.sampled_from(['NonLocal', 'DisentangledNonLocal']),
    st.sampled_from(['contiguous', 'channels_last', 'strided']),
)
def test_random_shapes_and_layouts(batch, channels, size, kwargs, name, layout):
    block = build(name, len(size), channels, **kwargs)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, *size, generator=generator)
    if layout == 'channels_last':
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == 'strided':
        x = torch.stack([x, x], dim=-1)[..., 0]
    assert block(x).shape == x.shape
    if batch:
        # Sums that cancel have the rounding of their terms.
        check(block, x, 2e-5)
    else:
        x.requires_grad_()
        block(x).sum().backward()
        assert x.grad.shape == x.shape


@pytest.mark.parametrize('positions', [16, 900])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
@pytest.mark.parametrize(
    'name, kwargs',
    [
        *(('NonLocal', dict(mode=mode)) for mode in MODES),
        ('DisentangledNonLocal', dict()),
    ],
)
def test_a_position_that_is_not_finite_is_not_hidden(name, kwargs, bad, positions):
    block = build(name, 1, 8, **kwargs)
    x = torch.randn(1, 8, positions)
    x[0, 3, 5] = bad
    with torch.no_grad():
        # Every position attends to it.
        assert not block(x).isfinite().any()


@pytest.mark.parametrize('name, kwargs', SYSTEMS.values())
def test_the_same_bits_twice(name, kwargs):
    block = build(name, 2, **kwargs)
    x = torch.randn(2, 24, 20, 20)
    # Copies, since a step of spectral norm changes the block.
    first, second = (output_and_gradients(copy.deepcopy(block), x) for _ in range(2))
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('norm', [1.0, 1e2, 1e4])
@pytest.mark.parametrize('mode', [*MODES, 'disentangled'])
def test_autocast_of_a_block_is_as_good_as_upstream(mode, norm, dtype):
    if mode == 'disentangled':
        from mmseg.models.decode_heads.dnl_head import DisentangledNonLocal2d

        upstream = DisentangledNonLocal2d(16, temperature=0.05)
        block = nl_plugins.DisentangledNonLocal2d(16)
    else:
        upstream = cnn.NonLocal2d(16, mode=mode)
        block = nl_plugins.NonLocal2d(16, mode=mode)
    randomize(block)
    upstream.load_state_dict(block.state_dict())
    errors = dict(ours=0.0, theirs=0.0)
    for seed in range(5):
        for size in (10, 24):  # a small map, and one for the fused kernel
            torch.manual_seed(seed)
            x = torch.randn(2, 16, size, size)
            x *= norm / x.norm(dim=1, keepdim=True)
            with torch.no_grad():
                expected = in_float64(block)(x.double())
                with torch.autocast('cpu', dtype):
                    for name, model in (('ours', block), ('theirs', upstream)):
                        error = (model(x).double() - expected).abs().mean()
                        # Half precision ends at 65504.
                        errors[name] += float(error.nan_to_num(nan=float('inf')))
    # The projections round as upstream's do, and that noise is all that may
    # make a difference; test_functional compares what is between them.
    assert errors['ours'] <= 1.05 * errors['theirs']


@pytest.mark.parametrize(
    'system',
    [
        'SAGAN, code',
        'OCNet, with its norm',
        'disentangled, segmentation',
        'simplified',
        'whitened by the standard deviation',
        'whitened by the standard deviation, layer',
        'learned temperature',
        'sine encoding',
    ],
)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_of_systems(system, dtype):
    name, kwargs = SYSTEMS[system]
    block = build(name, 2, **kwargs).eval()
    x = torch.randn(SHAPES[2])
    expected = in_float64(block)(x.double())
    with torch.autocast('cpu', dtype):
        actual = block(x)
    error = float((actual - expected).square().mean().sqrt())
    assert error < 0.1 * float((expected - x).square().mean().sqrt())


def test_heads_do_not_change_the_number_of_parameters():
    counts = {
        sum(p.numel() for p in build('NonLocal', 2, num_heads=h).parameters())
        for h in (1, 2, 4)
    }
    assert len(counts) == 1


def test_shared_query_and_key_are_one_projection():
    block = build('NonLocal', 2, share_query_key=True)
    assert not any(name.startswith('phi') for name in block.state_dict())


# The layers of the projections ---------------------------------------------


@pytest.mark.parametrize(
    'name, kwargs',
    [
        ('NonLocal2d', dict(output_layer=False)),
        ('NonLocal2d', dict(gate='scalar', output_layer=True)),
        (
            'NonLocal2d',
            dict(gate='scalar', output_layer=True, norm_cfg=dict(type='BN')),
        ),
        ('NonLocal2d', SYSTEMS['SAGAN, code'][1]),
        ('NonLocal2d', SYSTEMS['OCNet, with its norm'][1]),
        ('DisentangledNonLocal2d', SYSTEMS['disentangled, segmentation'][1]),
        ('DisentangledNonLocal2d', SYSTEMS['simplified'][1]),
        ('DisentangledNonLocal2d', dict(gate='scalar', output_layer=True)),
        (
            'DisentangledNonLocal2d',
            dict(gate='scalar', output_layer=True, norm_cfg=dict(type='BN')),
        ),
    ],
)
def test_a_new_block_is_an_identity_and_all_of_it_learns(name, kwargs):
    block = getattr(nl_plugins, name)(24, std=0.3, **kwargs)
    x, target = torch.randn(2, *SHAPES[2])
    for training in (False, True):
        assert torch.equal(block.train(training)(x), x)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        (block(x) - target).square().mean().backward()
        optimizer.step()
    # These shift all logits of a softmax alike, or a norm subtracts them.
    without_effect = ['theta.conv.bias', 'phi.conv.bias', 'conv_mask.bias']
    if 'norm_cfg' in kwargs:
        without_effect.append('g.conv.bias')
    for key, parameter in block.named_parameters():
        if key not in without_effect:
            assert parameter.grad.abs().max() > 1e-9, key


def test_without_zeros_init_the_value_of_a_gated_unary_term_is_sampled():
    """As in the segmentation code of the DNL paper, which is no identity."""
    kwargs = SYSTEMS['disentangled, segmentation'][1]
    for zeros_init, spread in ((True, 0.0), (False, 0.01)):
        block = nl_plugins.DisentangledNonLocal2d(512, zeros_init=zeros_init, **kwargs)
        assert float(block.g.conv.weight.std()) == pytest.approx(spread, rel=0.05)
        assert block.g.conv.bias is None and not hasattr(block, 'conv_out')


def test_spectral_norm_divides_by_the_largest_singular_value():
    block = build('NonLocal', 2, **SYSTEMS['SAGAN, code'][1])
    for _ in range(50):
        block(torch.zeros(SHAPES[2]))
    for layer in (block.theta, block.phi[0], block.g[0], block.conv_out):
        weight = layer.conv.weight.flatten(1)
        x = torch.randn(1, weight.shape[1], 3, 3)
        expected = weight / torch.linalg.matrix_norm(weight, 2)
        torch.testing.assert_close(
            layer(x).flatten(2), expected @ x.flatten(2), rtol=1e-3, atol=1e-3
        )


def test_blocks_with_spectral_norm_are_copied_pickled_and_called_twice():
    block = build('NonLocal', 2, **SYSTEMS['SAGAN, code'][1])
    x = torch.randn(SHAPES[2])
    (block(x) + block(x)).sum().backward()
    block.eval()
    copied, pickled = copy.deepcopy(block), pickle.loads(pickle.dumps(block))
    assert torch.equal(copied(x), block(x)) and torch.equal(pickled(x), block(x))
    plain = build(
        'NonLocal', 2, **SYSTEMS['SAGAN, code'][1] | dict(projection_cfg=None)
    )
    names = {key for key in plain.state_dict() if not key.endswith('bias')}
    vectors = {'theta.u', 'phi.0.u', 'g.0.u', 'conv_out.u'}
    assert set(block.state_dict()) == names | vectors


def test_a_norm_of_query_and_key_uses_its_statistics_in_evaluation():
    block = build('NonLocal', 2, projection_cfg=dict(query=NORM, key=NORM))
    x = torch.randn(SHAPES[2])
    block(x)
    assert block.theta.norm.num_batches_tracked == 1
    check(block.eval(), x)


@pytest.mark.parametrize('kwargs', [SYSTEMS['SAGAN, code'][1], dict()])
def test_layers_without_bias_are_the_layers_with_a_bias_of_zero(kwargs):
    kwargs = kwargs | dict(projection_cfg={n: dict(bias=False) for n in PROJECTIONS})
    block = build('NonLocal', 2, **kwargs)
    other = build('NonLocal', 2, **kwargs | dict(projection_cfg=None))
    state = block.state_dict()
    assert not any(key.endswith('bias') for key in state)
    for key, value in other.state_dict().items():
        value.copy_(state.get(key, torch.zeros_like(value)))
    x = torch.randn(SHAPES[2])
    torch.testing.assert_close(block(x), other(x))


# The encoding of positions ------------------------------------------------


@pytest.mark.parametrize('size', [(9,), (1, 1), (5, 6), (3, 4, 5)])
def test_the_sine_encoding_is_that_of_mmdet(size):
    from mmdet.models.layers.positional_encoding import (
        SinePositionalEncoding,
        SinePositionalEncoding3D,
    )

    actual = with_sine_encoding(torch.zeros(2, 24, *size))
    if len(size) == 1:
        # The columns of an image with twice the channels.
        upstream = SinePositionalEncoding(24, normalize=True)
        expected = upstream(torch.zeros(2, 1, *size))[:, 24:, 0]
    elif len(size) == 2:
        expected = SinePositionalEncoding(12, normalize=True)(torch.zeros(2, *size))
    else:
        upstream = SinePositionalEncoding3D(12, normalize=True)
        expected = upstream(torch.zeros(2, *size)).transpose(1, 2)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('encoding', [None, 'sine'])
def test_only_an_encoding_tells_positions_apart(encoding):
    """Without it a permutation of the input permutes the output."""
    block = build('NonLocal', 1, positional_encoding=encoding)
    x = torch.randn(1, 24, 9)
    same = torch.allclose(block(x).flip(2), block(x.flip(2)), rtol=1e-3, atol=1e-4)
    assert same == (encoding is None)


def test_the_encoding_adds_no_parameters():
    block = build('NonLocal', 2, positional_encoding='sine')
    plain = build('NonLocal', 2)
    assert block.state_dict().keys() == plain.state_dict().keys()


# The 1 x 1 convolutions as products ---------------------------------------


def test_hooks_of_the_projections_run():
    block = build('NonLocal', 2)
    x = torch.randn(SHAPES[2])
    expected = block(x)
    called = []
    block.theta.register_forward_hook(lambda *args: called.append('theta'))
    block.conv_out.conv.register_forward_pre_hook(
        lambda *args: called.append('conv_out')
    )
    torch.testing.assert_close(block(x), expected)
    assert called == ['theta', 'conv_out']


def test_a_reparametrized_projection_keeps_its_own_forward():
    block = build('NonLocal', 2)
    parametrizations.weight_norm(block.g.conv)
    x = torch.randn(SHAPES[2])
    before = block(x)
    block.g.conv.parametrizations.weight.original0.data *= 2
    expected = x + 0 * x
    with torch.no_grad():
        y = block.layout.merge(block.attend(block.project(x)), x.shape)
        expected = x + block.conv_out(y)
        assert not torch.allclose(block(x), before)
        torch.testing.assert_close(block(x), expected)


def test_a_convolution_of_another_type_runs_itself():

    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    block = build('NonLocal', 2)
    x = torch.randn(SHAPES[2])
    before = block(x) - x
    conv = block.conv_out.conv
    doubled = Doubled(conv.in_channels, conv.out_channels, 1)
    doubled.load_state_dict(conv.state_dict())
    block.conv_out.conv = doubled
    torch.testing.assert_close(block(x) - x, 2 * before)


@pytest.mark.parametrize(
    'ndim, layout', [(2, torch.channels_last), (3, torch.channels_last_3d)]
)
def test_the_layout_of_the_input_is_kept(ndim, layout):
    block = build('NonLocal', ndim)
    x = torch.randn(SHAPES[ndim])
    assert block(x).is_contiguous()
    out = block(x.contiguous(memory_format=layout))
    assert out.is_contiguous(memory_format=layout)
    torch.testing.assert_close(out, block(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(num_heads=5), r'num_heads must divide key_channels \(12\).* 5'),
        (dict(num_heads=4, value_channels=6), r'value_channels \(6\)'),
        (dict(num_heads=0), 'num_heads must be .* got 0'),
        (dict(sub_sample='after'), "sub_sample must be .* 'after'"),
        (dict(pool_size=2), 'pool_size is that of sub_sample'),
        (dict(sub_sample=True, pool_size=(1, 2, 2)), r'2 integers .* \(1, 2, 2'),
        (dict(sub_sample=True, pool_size=0), 'pool_size must be 2 .* got 0'),
        (dict(mode='gaussian', share_query_key=True), 'share_query_key False'),
        (dict(output_layer='conv'), "must be None, True or False, but got 'conv'"),
        (dict(output_layer=False, value_channels=6), r'in_channels \(24\).* got 6'),
        (dict(output_layer=False, norm_cfg=dict(type='BN')), 'output_layer True'),
        (
            dict(output_layer=False, projection_cfg=dict(output=dict(bias=False))),
            r"keys are out of \('query', 'key', 'value'\).*'output'",
        ),
        (
            dict(share_query_key=True, projection_cfg=dict(key=NORM)),
            r"keys are out of \('query', 'value', 'output'\)",
        ),
        (
            dict(mode='gaussian', projection_cfg=dict(query=NORM)),
            r"keys are out of \('value', 'output'\)",
        ),
        (dict(projection_cfg=dict(value=NORM)), r"out of \('bias', 'with_spectral_n"),
        (dict(projection_cfg=dict(value=dict(bias='no'))), r"bias must .* got 'no'"),
        (
            dict(projection_cfg=dict(key=dict(norm_cfg=dict(type='BM')))),
            "projection_cfg.'key'..norm_cfg.type must .* got 'BM'",
        ),
        (
            dict(projection_cfg=dict(output=dict(with_spectral_norm=True))),
            'the layer that starts at zero',
        ),
        (
            dict(projection_cfg=dict(query=NORM | dict(with_spectral_norm=True))),
            'no other norm and no activation',
        ),
        (
            dict(projection_cfg=dict(query=NORM), with_cp=True),
            'with_cp must be False',
        ),
        (dict(positional_encoding='cosine'), "must be None or 'sine', but got 'cos"),
        (
            dict(positional_encoding='sine', in_channels=6),
            'in_channels divisible by 4 in 2d, but got 6',
        ),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        nl_plugins.NonLocal2d(**dict(in_channels=24) | kwargs)


def test_an_input_too_small_for_the_pooling_is_named():
    block = nl_plugins.NonLocal2d(24, sub_sample=True, pool_size=4)
    with pytest.raises(ValueError, match=r'pools by \(4, 4\).*\(3, 9\)'):
        block(torch.zeros(1, 24, 3, 9))


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(mode='gaussian', sub_sample=True),
        dict(mode='dot_product', norm_cfg=dict(type='BN')),
        dict(mode='concatenation', gate='scalar'),
    ],
)
def test_recomputation_gives_the_same_gradients_and_statistics(kwargs):
    block = randomize(nl_plugins.NonLocal2d(8, with_cp=True, **kwargs))
    plain = nl_plugins.NonLocal2d(8, **kwargs)
    plain.load_state_dict(block.state_dict())
    x = torch.randn(2, 8, 6, 7)
    assert_same_results(
        output_and_gradients(block, x), output_and_gradients(plain, x), 1e-6
    )
    for actual, expected in zip(block.buffers(), plain.buffers()):
        torch.testing.assert_close(actual, expected)


def test_recomputation_stores_less():
    x = torch.randn(1, 64, 20, 20)

    def stored(**kwargs):
        sizes = []
        block = nl_plugins.NonLocal2d(64, **kwargs)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            block(x.clone().requires_grad_())
        return sum(sizes)

    # The input, and what the output layer reads; not query, key, value, map.
    assert stored(with_cp=True) < 2.5 * x.numel() < stored()
