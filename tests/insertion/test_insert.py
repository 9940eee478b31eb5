"""Blocks at their places: channels, hooks, copies, targets that are refused."""

import copy
import io
import warnings

import pytest
import torch
from insertion.inserting import (
    NL,
    assert_equal,
    build,
    image,
    outputs,
    pickled,
    retina_head,
)
from mmengine.config import Config
from reference import randomize
from torch import nn

from nl_plugins.insertion import inserted_blocks

pytestmark = pytest.mark.usefixtures('mmdet_scope')


@pytest.mark.parametrize('side', ['before', 'after'])
def test_blocks_at_one_place_run_in_the_order_of_the_list(side):
    model = build(
        [
            dict(type=NL, **{side: 'layer2.0'}),
            dict(type='ContextBlock', ratio=0.5, **{side: 'layer2.0'}),
        ]
    )
    order = []
    for name in 'non_local_block', 'context_block':
        model.layer2[0].get_submodule(name).register_forward_hook(
            lambda module, *_: order.append(type(module).__name__)
        )
    outputs(model)
    assert order == ['NonLocal2d', 'ContextBlock']


def test_channels_of_a_place_are_inferred_in_heads_and_whole_models():
    head = build(
        [dict(type=NL, before='convs.1')],
        base='FCNMaskHead',
        num_convs=2,
        in_channels=8,
        conv_out_channels=12,
        num_classes=3,
    )
    block = head.convs[1].non_local_block
    assert block.in_channels == 12
    cfg = Config.fromfile('configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py').model
    cfg.backbone = dict(type='ResNet', depth=18)
    cfg.neck.in_channels = [64, 128, 256, 512]
    detector = build(
        [
            dict(type=NL, before='roi_head.mask_head.convs.1'),
            dict(type=NL, after='backbone.layer2.-1'),
            dict(type=NL, after='neck.lateral_convs.2'),
        ],
        base=cfg.pop('type'),
        **cfg,
    )
    assert detector.roi_head.mask_head.convs[1].non_local_block.in_channels == 256
    assert detector.backbone.layer2[1].non_local_block.in_channels == 128
    assert detector.neck.lateral_convs[2].non_local_block.in_channels == 256


def test_places_that_only_the_target_itself_can_describe():
    # A neck takes a list of levels, so it cannot be run on an image.
    neck = build(
        [dict(type=NL, before='lateral_convs.1')],
        base='FPN',
        in_channels=[8, 16],
        out_channels=4,
        num_outs=2,
    )
    assert neck.lateral_convs[1].non_local_block.in_channels == 16
    head = build(
        [dict(type=NL, after='rpn_conv')],
        base='RPNHead',
        in_channels=8,
        feat_channels=12,
    )
    assert head.rpn_conv.non_local_block.in_channels == 12


def test_further_arguments_of_the_target_arrive():
    model = build(
        [dict(type=NL, in_channels=3, before='add')], base='nl_plugins.TwoInputs'
    )
    x = image()
    assert_equal(outputs(model, x), (3 * x,))


def trained_backbone():
    return randomize(
        build(
            [
                dict(type=NL, before='layer3.-1'),
                dict(type='nl_plugins.DisentangledNonLocal2d', after='layer2.-1'),
            ]
        ),
        0.1,
    )


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, pickled, saved])
def test_a_copy_runs_its_own_blocks(duplicate):
    model, x = trained_backbone(), image()
    expected = outputs(model, x)
    other = duplicate(model)
    assert_equal(outputs(other, x), expected)
    for block in (other.layer3[-1].non_local_block, other.layer2[-1].non_local_block):
        nn.init.zeros_(block.conv_out.conv.weight)
    assert_equal(outputs(model, x), expected)
    assert not torch.equal(outputs(other, x)[-1], expected[-1])
    other.init_weights()
    assert_equal(outputs(model, x), expected)


def test_ema_averages_the_blocks():
    from mmengine.model import ExponentialMovingAverage

    model, x = trained_backbone(), image()
    ema = ExponentialMovingAverage(model, momentum=0.5)
    ema.update_parameters(model)
    before = outputs(model, x)
    with torch.no_grad():
        model.layer3[-1].non_local_block.g.conv.weight.add_(1.0)
    ema.update_parameters(model)
    mean = ema.module.layer3[-1].non_local_block.g.conv.weight
    torch.testing.assert_close(
        mean, model.layer3[-1].non_local_block.g.conv.weight - 0.5
    )
    after, averaged = outputs(model, x), outputs(ema, x)
    assert not torch.equal(averaged[-1], before[-1])
    assert not torch.equal(averaged[-1], after[-1])


@pytest.mark.slow
def test_torch_compile_gives_the_same_output_without_a_graph_break():
    model, x = trained_backbone(), image()
    expected = outputs(model, x)
    # The graph capture is what hooks can break; the code generator behind it
    # needs a minute and knows nothing of hooks.
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    for a, b in zip(outputs(compiled, x), expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients():
    results = []
    for with_cp in False, True:
        model = randomize(
            build([dict(type=NL, before='layer3.-1')], with_cp=with_cp), 0.1
        )
        model.train()
        torch.manual_seed(1)
        sum(out.sum() for out in model(image())).backward()
        results.append([p.grad for p in model.parameters()])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b)


def test_an_unknown_argument_of_a_block_is_named():
    with pytest.raises(
        TypeError, match="after='layer2.-1'.*redution'; did you mean 'reduc"
    ):
        build([dict(type=NL, after='layer2.-1', redution=4)])
    with pytest.raises(TypeError, match="'per_cal'; did you mean 'per_call'"):
        build([dict(type=NL, after='layer2', per_cal=True)])


def test_a_block_of_upstream_with_the_name_of_ours_is_named():
    with pytest.warns(UserWarning, match="is mmcv's block; .*type='nl_plugins.NonL"):
        build([dict(type='NonLocal2d', after='layer2')])


def test_a_tensor_whose_second_size_is_not_its_channels_is_refused():
    with pytest.raises(ValueError, match=r'it is not \(B, C, ...\)'):
        build(
            [dict(type='nl_plugins.NonLocal1d', after='stages.2.blocks.-1')],
            base='SwinTransformer',
        )


def test_a_place_in_the_backbone_of_a_whole_model_is_checked():
    cfg = dict(
        backbone=dict(type='ResNet', depth=18),
        neck=dict(type='FPN', in_channels=[64], out_channels=64, num_outs=1),
        bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=64),
    )
    with pytest.raises(ValueError, match='runs 2 times per forward'):
        build([dict(type=NL, after='backbone.layer2.0.relu')], base='RetinaNet', **cfg)
    with pytest.raises(ValueError, match='returns no single tensor'):
        build([dict(type=NL, after='backbone')], base='RetinaNet', **cfg)


@pytest.mark.parametrize('side', ['before', 'after'])
def test_a_place_that_runs_per_level_is_refused_in_the_first_forward(side):
    # The head takes a list of levels, so it was not seen running.
    head = retina_head([dict(type=NL, **{side: 'cls_convs.0'})])
    levels = [torch.randn(1, 8, s, s) for s in (8, 4)]
    for model in head, copy.deepcopy(head), pickled(head):
        with pytest.raises(
            ValueError,
            match=f"{side}='cls_convs.0': .* runs several times per forward",
        ):
            model(levels)


def test_a_place_that_runs_once_is_counted_in_the_first_forward_alone():
    head = retina_head([dict(type=NL, after='cls_convs.0')])
    level = [torch.randn(1, 8, 8, 8)]
    expected = head(level)
    assert 'forward' not in vars(head)
    for model in head, copy.deepcopy(head):
        for _ in range(2):
            for a, b in zip(model(level), expected):
                assert torch.equal(a[0], b[0])


def test_a_forward_that_is_called_directly_is_counted_too():
    # as MMSegmentation calls those of its heads
    head = build(
        [dict(type=NL, after='shared', in_channels=8)], base='nl_plugins.Shared'
    )
    with pytest.raises(ValueError, match="after='shared': .* runs several"):
        head.forward([image(8, 8)[:, :1].expand(-1, 8, -1, -1)])


@pytest.mark.slow
def test_a_compiled_head_has_no_graph_break():
    head = retina_head([dict(type=NL, after='cls_convs.0')]).eval()
    level = [torch.randn(1, 8, 8, 8)]
    compiled = torch.compile(head, backend='aot_eager', fullgraph=True)
    for a, b in zip(compiled(level), head(level)):
        torch.testing.assert_close(a[0], b[0], rtol=1e-4, atol=1e-5)


def test_a_failed_first_forward_does_not_count():
    head = retina_head([dict(type=NL, after='cls_convs.0')])
    with pytest.raises(TypeError):
        head([torch.randn(1, 8, 8, 8), None])
    head([torch.randn(1, 8, 8, 8)])


@pytest.mark.parametrize('place', [dict(after='norm'), dict(before='norm')])
def test_a_sequence_whose_layout_is_unknown_is_refused(place):
    # (B, N, C) with N = C passes for (B, C, N)
    with pytest.raises(
        ValueError,
        match=r'as well be \(B, N, C\).*'
        "layout='BCN'",
    ):
        build(
            [dict(type='nl_plugins.NonLocal1d', in_channels=6, **place)],
            base='nl_plugins.Sequences',
        )
    model = build(
        [dict(type='nl_plugins.NonLocal1d', in_channels=6, layout='BCN', **place)],
        base='nl_plugins.Sequences',
    )
    x = torch.randn(2, 6, 6)
    assert torch.equal(model([x]), model.norm(x))


def test_a_convolution_tells_the_layout():
    model = build(
        [dict(type='nl_plugins.NonLocal1d', after='conv')], base='nl_plugins.Sequences'
    )
    assert model.conv.non_local_block.in_channels == 6


def test_an_encoder_of_detr_is_refused():
    from mmdet.models.layers import DetrTransformerEncoder

    with pytest.raises(ValueError, match=r'as well be \(B, N, C\)'):
        build(
            [dict(type='nl_plugins.NonLocal1d', in_channels=256, after='layers.0')],
            base=DetrTransformerEncoder,
            num_layers=1,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=256, num_heads=8),
                ffn_cfg=dict(embed_dims=256, feedforward_channels=64),
            ),
        )


def test_inserted_blocks_are_found():
    model = build(
        [
            dict(type=NL, before='layer2.0'),
            dict(type='ContextBlock', ratio=0.5, after=['layer2.0', 'conv1']),
        ]
    )
    assert set(inserted_blocks(model)) == {
        'layer2.0.non_local_block',
        'layer2.0.context_block',
        'conv1.context_block',
    }


@pytest.mark.parametrize(
    'place, message',
    [
        (dict(after='pair'), 'returns no single tensor'),
        (dict(after='idle'), 'does not run when'),
        (dict(after='some'), 'in a ModuleList would become .* 0'),
    ],
)
def test_a_target_that_cannot_hold_a_block_is_named(place, message):
    with pytest.raises(ValueError, match=message):
        build([dict(type=NL, **place)], base='nl_plugins.Oddities')


def test_channels_that_cannot_be_inferred_are_asked_for():
    with pytest.raises(ValueError, match="after='pair' cannot be inferred"):
        build([dict(type=NL, after='pair')], base='nl_plugins.Opaque')
    model = build([dict(type=NL, before='conv')], base='nl_plugins.Opaque')
    assert model.conv.non_local_block.in_channels == 3
    # A second block is not taken for a layer of the target.
    model = build([dict(type=NL, after=['conv', 'conv'])], base='nl_plugins.Opaque')
    assert model.conv.non_local_block_1.in_channels == 4


def test_a_target_seen_to_fail_only_when_it_runs_is_named():
    model = build(
        [dict(type=NL, in_channels=4, after='pair')], base='nl_plugins.Opaque'
    )
    with pytest.raises(ValueError, match="after='pair'.*returns no single"):
        model(image())


def test_blocks_in_a_frozen_stage_warn_each():
    with pytest.warns(UserWarning, match="'layer1.-1'.*frozen stage") as record:
        model = build([dict(type=NL, after=['layer1', 'layer1.-1'])], frozen_stages=1)
    # Frozen before the first train(), or DDP waits for their gradients.
    assert not any(p.requires_grad for p in model.layer1.parameters())
    assert len([r for r in record if 'frozen' in str(r.message)]) == 2
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        build([dict(type=NL, after='layer2')], frozen_stages=1)
