"""The segmentation heads against MMSegmentation's."""

import mmseg.models.decode_heads as mmseg_heads
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from reference import (
    assert_same_results,
    output_and_gradients,
    randomize,
    relative_error,
)

import nl_plugins

HEAD = dict(in_channels=16, channels=8, num_classes=5, dropout_ratio=0)


def head_of(module, name, **kwargs):
    init_default_scope('mmseg')
    return getattr(module, name)(**HEAD | kwargs)


class Head(torch.nn.Module):
    """A head as a module on one level of features."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head([x])


@pytest.mark.parametrize(
    'name, kwargs',
    [
        ('NLHead', dict()),
        ('NLHead', dict(mode='dot_product', reduction=4)),
        ('NLHead', dict(use_scale=False, norm_cfg=dict(type='BN'))),
        ('DNLHead', dict()),
        ('DNLHead', dict(temperature=0.5, norm_cfg=dict(type='BN'))),
        ('DNLHead', dict(mode='dot_product', concat_input=False)),
    ],
)
@pytest.mark.parametrize('size', [(6, 7), (16, 20)])
def test_upstream_state_dict_and_results(name, kwargs, size):
    upstream = randomize(head_of(mmseg_heads, name, **kwargs), 0.2)
    head = head_of(nl_plugins, name, **kwargs)
    assert isinstance(head, type(upstream))
    head.load_state_dict(upstream.state_dict(), strict=True)
    upstream.load_state_dict(head.state_dict(), strict=True)
    x = torch.randn(2, 16, *size)
    actual, expected = (output_and_gradients(Head(h), x) for h in (head, upstream))
    assert relative_error(actual['output'], expected['output']) < 1e-5
    # Gradients that pass a batch norm cancel in part.
    assert_same_results(actual, expected, 1e-4)


def test_the_block_is_ours_with_all_its_options():
    head = head_of(
        nl_plugins,
        'DNLHead',
        temperature=0.1,
        block=dict(whiten='layer', coupling='mul', num_heads=2),
    )
    block = head.dnl_block
    assert type(block) is nl_plugins.DisentangledNonLocal2d
    assert (block.temperature, block.whiten, block.coupling, block.num_heads) == (
        0.1,
        'layer',
        'mul',
        2,
    )
    head = head_of(
        nl_plugins,
        'NLHead',
        norm_cfg=dict(type='BN'),
        block=dict(gate='scalar', reduction=4),
    )
    assert head.nl_block.key_channels == 2
    assert 'nl_block.gamma' in head.state_dict()


@pytest.mark.parametrize('output_layer', [None, False, True])
def test_a_gate_leaves_the_output_layer_and_its_norm_on_request(output_layer):
    head = head_of(
        nl_plugins,
        'NLHead',
        norm_cfg=dict(type='BN'),
        block=dict(gate='scalar', output_layer=output_layer),
    )
    keys = {'nl_block.gamma', 'nl_block.conv_out.bn.weight'} & set(head.state_dict())
    assert len(keys) == (2 if output_layer else 1)


def test_the_block_of_the_papers_segmentation_code():
    head = head_of(
        nl_plugins,
        'DNLHead',
        norm_cfg=dict(type='BN'),
        use_scale=False,
        temperature=1.0,
        block=dict(
            gate='scalar',
            whiten='layer',
            projection_cfg=dict(value=dict(bias=False)),
        ),
    )
    block = head.dnl_block
    assert block.logit_scale == 1
    shapes = {key: tuple(value.shape) for key, value in block.state_dict().items()}
    assert shapes == {
        'gamma': (1,),
        'g.conv.weight': (8, 8, 1, 1),
        'theta.conv.weight': (4, 8, 1, 1),
        'theta.conv.bias': (4,),
        'phi.conv.weight': (4, 8, 1, 1),
        'phi.conv.bias': (4,),
        'conv_mask.weight': (1, 8, 1, 1),
        'conv_mask.bias': (1,),
    }


def test_a_new_head_starts_with_an_identity():
    for name in 'NLHead', 'DNLHead':
        head = head_of(nl_plugins, name, norm_cfg=dict(type='BN'))
        head.init_weights()
        block = head.nl_block if name == 'NLHead' else head.dnl_block
        x = torch.randn(2, 8, 5, 6)
        assert torch.equal(block(x), x)


@pytest.mark.parametrize('name', ['NLHead', 'DNLHead'])
def test_built_from_a_config_of_any_scope(name):
    init_default_scope('mmdet')
    head = MODELS.build(dict(type=f'nl_plugins.{name}', **HEAD))
    assert type(head) is getattr(nl_plugins, name)


@pytest.mark.parametrize(
    'block, error, message',
    [
        (dict(whiten='batch'), ValueError, "whiten must be .* 'batch'"),
        (dict(tempreature=1), TypeError, 'tempreature'),
        (dict(num_heads=3), ValueError, 'num_heads must divide'),
    ],
)
def test_wrong_options_are_named(block, error, message):
    with pytest.raises(error, match=message):
        head_of(nl_plugins, 'DNLHead', block=block)


@pytest.mark.parametrize('name', ['NLHead', 'DNLHead'])
@pytest.mark.parametrize(
    'test_cfg',
    [
        dict(mode='whole'),
        dict(mode='slide', crop_size=(32, 48), stride=(24, 40)),
    ],
)
def test_whole_and_slide_inference_as_upstream(name, test_cfg):
    # 40 x 72 px: the windows overlap, the last ones are moved back
    init_default_scope('mmseg')
    norm_cfg = dict(type='BN')
    results = []
    for scope in 'mmseg', 'nl_plugins':
        model = MODELS.build(
            dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor'),
                backbone=dict(
                    type='ResNetV1c',
                    depth=18,
                    stem_channels=8,
                    base_channels=8,
                    strides=(1, 2, 1, 1),
                    dilations=(1, 1, 2, 4),
                    norm_cfg=norm_cfg,
                ),
                decode_head=dict(
                    type=f'{scope}.{name}',
                    in_index=3,
                    norm_cfg=norm_cfg,
                    **HEAD | dict(in_channels=64),
                ),
                test_cfg=ConfigDict(test_cfg),
            )
        )
        results.append(randomize(model, 0.2).eval())
    upstream, ours = results
    ours.load_state_dict(upstream.state_dict())
    image = torch.randint(0, 256, (3, 40, 72), dtype=torch.uint8)
    with torch.no_grad():
        expected, actual = (
            model.test_step(dict(inputs=[image], data_samples=None))[0]
            for model in (upstream, ours)
        )
    logits = actual.seg_logits.data
    assert logits.shape == (5, 40, 72)
    assert relative_error(logits, expected.seg_logits.data) < 1e-5
