"""WithBlocks: places, identity at the start, copies, wrong input."""

import copy
import io
import pickle
import warnings

import hub
import pytest
import torch
from mmcv.cnn import NonLocal2d as MMCVNonLocal2d
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import save_checkpoint
from reference import randomize
from torch import nn

import nl_plugins
from nl_plugins.insertion import inserted_blocks
from nl_plugins.registry import MODELS

NL = 'nl_plugins.NonLocal2d'


@pytest.fixture(autouse=True)
def mmdet_scope(seed):
    MMLogger.get_instance('tests', log_level='ERROR')
    current = DefaultScope._instance_dict.copy()
    init_default_scope('mmdet')
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(current)


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


# Places -------------------------------------------------------------------


def test_returns_the_very_base_with_new_keys_only():
    from mmdet.models import ResNet

    model = build([dict(type=NL, before='layer3.-1')], depth=50)
    assert type(model) is ResNet
    plain = ResNet(50, base_channels=8, stem_channels=8)
    assert not set(plain.state_dict()) - set(model.state_dict())
    assert new_keys(model, depth=50) == {'layer3.5.non_local_block'}


@pytest.mark.parametrize(
    'place, key',
    [
        (dict(after='layer2.-1'), 'layer2.1.non_local_block'),
        (dict(after='layer2.0'), 'layer2.0.non_local_block'),
        (dict(after='layer2'), 'layer2.1.non_local_block'),
        (dict(before='layer2'), 'layer2.0.non_local_block'),
        (dict(before='layer2.0.conv2'), 'layer2.0.conv2.non_local_block'),
    ],
)
def test_a_block_runs_where_it_was_placed(place, key):
    model = build([dict(type=NL, **place)])
    assert new_keys(model) == {key}
    seen = {}
    target = model.get_submodule(key.rpartition('.')[0])
    block = model.get_submodule(key)
    block.register_forward_hook(
        lambda module, args, out: seen.update(received=args[0], gave=out)
    )
    target.register_forward_hook(
        lambda module, args, out: seen.update(target_in=args[0], out=out)
    )
    randomize(block)
    outputs(model)
    if 'after' in place:
        assert torch.equal(seen['out'], seen['gave'])
        assert not torch.equal(seen['received'], seen['gave'])
    else:
        assert torch.equal(seen['target_in'], seen['gave'])


def test_a_list_of_places_gets_a_block_each():
    model = build(
        [
            dict(type=NL, after=['layer2.0', 'layer2.1', 'layer3.-1']),
            dict(type=NL, after='layer2.0'),
        ]
    )
    names = new_keys(model)
    assert names == {
        'layer2.0.non_local_block',
        'layer2.0.non_local_block_1',
        'layer2.1.non_local_block',
        'layer3.1.non_local_block',
    }
    assert len({model.get_submodule(name) for name in names}) == 4


@pytest.mark.parametrize('position', ['before', 'after'])
def test_blocks_at_one_place_run_in_the_order_of_the_list(position):
    model = build(
        [
            dict(type=NL, **{position: 'layer2.0'}),
            dict(type='ContextBlock', ratio=0.5, **{position: 'layer2.0'}),
        ]
    )
    order = []
    for name in 'non_local_block', 'context_block':
        model.layer2[0].get_submodule(name).register_forward_hook(
            lambda module, *_: order.append(type(module).__name__)
        )
    outputs(model)
    assert order == ['NonLocal2d', 'ContextBlock']


@pytest.mark.parametrize(
    'block',
    [
        dict(type='ContextBlock', ratio=0.25),
        dict(type='GeneralizedAttention'),
        dict(type=MMCVNonLocal2d),
        dict(type='nl_plugins.DisentangledNonLocal2d'),
    ],
)
def test_any_registered_block_can_be_inserted(block):
    model = build([dict(after='layer2.-1', **block)])
    model.init_weights()
    plain = build([])
    assert not plain.load_state_dict(model.state_dict(), strict=False).missing_keys
    x = image()
    assert_equal(outputs(model, x), outputs(plain, x))


def test_upstreams_plugins_take_the_blocks():
    plugins = [
        dict(
            cfg=dict(type=NL),
            stages=(False, False, True, False),
            position='after_conv3',
        )
    ]
    from mmdet.models import ResNet

    model = ResNet(50, base_channels=8, stem_channels=8, plugins=plugins)
    model.init_weights()
    blocks = [
        name
        for name, m in model.named_modules()
        if isinstance(m, nl_plugins.NonLocal2d)
    ]
    assert blocks == [f'layer3.{i}.nonlocal_block' for i in range(6)]
    plain = ResNet(50, base_channels=8, stem_channels=8)
    plain.load_state_dict(model.state_dict(), strict=False)
    x = image()
    assert_equal(outputs(model, x), outputs(plain, x))


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


def test_new_style_configs_with_classes(tmp_path):
    # The wheel of mmdet has none of its own to inherit from.
    (tmp_path / 'base.py').write_text("""
from mmdet.models import FPN, ResNet

model = dict(backbone=dict(type=ResNet, depth=18), neck=dict(type=FPN))
""")
    file = tmp_path / 'config.py'
    file.write_text("""
from mmengine.config import read_base

with read_base():
    from .base import *

from mmdet.models import ResNet
from nl_plugins import NonLocal2d, WithBlocks

model.backbone.update(
    type=WithBlocks,
    base=ResNet,
    blocks=[dict(type=NonLocal2d, before='layer3.-1')])
""")
    cfg = Config.fromfile(file)
    Config.fromstring(cfg.pretty_text, '.py')  # a run dumps its config
    model = MODELS.build(cfg.model.backbone)
    from mmdet.models import ResNet

    assert type(model) is ResNet
    assert new_keys(model, base_channels=64, stem_channels=64) == {
        'layer3.1.non_local_block'
    }


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


def test_a_block_type_is_looked_up_in_the_current_scope():
    from mmdet.registry import MODELS as MMDET_MODELS

    @MMDET_MODELS.register_module(force=True)
    class ScopedBlock(nn.Identity):
        pass

    model = build([dict(type='ScopedBlock', after='layer2.-1')])
    assert isinstance(model.layer2[1].scoped_block, ScopedBlock)


def test_further_arguments_of_the_target_arrive():
    model = build(
        [dict(type=NL, in_channels=3, before='add')], base='nl_plugins.TwoInputs'
    )
    x = image()
    assert_equal(outputs(model, x), (3 * x,))


# Identity at the start ----------------------------------------------------


def test_a_checkpoint_with_blocks_survives_init_weights(tmp_path):
    blocks = [dict(type=NL, after='layer2.-1')]
    trained = randomize(build(blocks))
    file = str(tmp_path / 'trained.pth')
    save_checkpoint(dict(state_dict=trained.state_dict()), file)
    model = build(blocks, init_cfg=dict(type='Pretrained', checkpoint=file))
    model.init_weights()
    torch.testing.assert_close(model.state_dict(), trained.state_dict())


def test_a_base_that_looks_for_each_of_its_layers(tmp_path):
    # MMAction2's 2D ResNet asks the file for every ConvModule that it has
    pytest.importorskip('mmaction')
    init_default_scope('mmaction')
    state = hub.resnet(18)
    file = str(tmp_path / 'resnet18.pth')
    torch.save(state, file)
    blocks = [
        dict(
            type='nl_plugins.NonLocal3d',
            num_frames=4,
            after=['layer2.0', 'layer3.-1'],
            norm_cfg=dict(type='BN3d'),
        ),
        dict(type=NL, before='layer2.0'),
    ]
    model = MODELS.build(
        dict(
            type='nl_plugins.WithBlocks',
            base='ResNet',
            blocks=blocks,
            depth=18,
            pretrained=file,
        )
    )
    order = [name for name, _ in model.named_parameters()]
    expected = {
        key: value.clone()
        for key, value in model.state_dict().items()
        if 'non_local' in key
    }
    model.init_weights()
    hub.assert_landed(model, state)
    assert [name for name, _ in model.named_parameters()] == order
    assert {key for key in model.state_dict() if 'non_local' in key} == expected.keys()
    # and one that holds blocks fills them
    trained = randomize(model)
    save_checkpoint(dict(state_dict=trained.state_dict()), file)
    model = MODELS.build(
        dict(
            type='nl_plugins.WithBlocks',
            base='ResNet',
            blocks=blocks,
            depth=18,
            pretrained=file,
            torchvision_pretrain=False,
        )
    )
    model.init_weights()
    torch.testing.assert_close(model.state_dict(), trained.state_dict())


def test_blocks_are_back_when_a_base_cannot_load(tmp_path):
    model = build(
        [dict(type=NL, after='layer2.-1')],
        init_cfg=dict(type='Pretrained', checkpoint='nothing.pth'),
    )
    keys = list(model.state_dict())
    with pytest.raises(FileNotFoundError):
        model.init_weights()
    assert list(model.state_dict()) == keys


def test_a_second_init_weights_changes_nothing():
    model = build([dict(type=NL, after='layer2.-1')])
    model.init_weights()
    randomize(model)
    state = copy.deepcopy(model.state_dict())
    model.init_weights()
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


def test_a_checkpoint_without_blocks_leaves_them_an_identity(tmp_path):
    plain = randomize(build([]))
    file = str(tmp_path / 'plain.pth')
    save_checkpoint(dict(state_dict=plain.state_dict()), file)
    model = build(
        [dict(type=NL, after='layer2.-1')],
        init_cfg=dict(type='Pretrained', checkpoint=file),
    )
    model.init_weights()
    x = image()
    assert_equal(outputs(model, x), outputs(plain, x))


@pytest.mark.parametrize(
    'base, kwargs, shape',
    [
        ('mmdet.ResNet', dict(depth=50), (2, 3, 64, 64)),
        ('mmseg.ResNetV1c', dict(depth=50), (2, 3, 64, 64)),
        ('mmaction.ResNet3d', dict(depth=50, pretrained2d=False), (1, 3, 8, 32, 32)),
    ],
)
def test_identity_after_the_bases_own_init_weights(base, kwargs, shape):
    kwargs = dict(base_channels=8) | kwargs
    ndim = len(shape) - 2
    place = 'layer3.-1' if ndim == 2 else 'layer3.5'
    scope = base.split('.')[0]
    pytest.importorskip(scope)
    init_default_scope(scope)
    model = build(
        [
            dict(type=f'nl_plugins.NonLocal{ndim}d', before=place),
            dict(
                type=f'nl_plugins.DisentangledNonLocal{ndim}d',
                norm_cfg=dict(type=f'BN{ndim}d'),
                after='layer2.1',
            ),
        ],
        base=base,
        **kwargs,
    )
    plain = build([], base=base, **kwargs)
    model.init_weights()
    result = plain.load_state_dict(model.state_dict(), strict=False)
    assert not result.missing_keys and result.unexpected_keys
    x = torch.randn(shape)
    assert_equal(outputs(model, x), outputs(plain, x))


def test_mask_rcnn_with_blocks_starts_with_the_outputs_of_the_baseline(torch_home):
    hub.write(torch_home, 'torchvision://resnet50')
    from mmdet.structures import DetDataSample

    detectors = []
    for name in 'nl-c4', 'dnl-c4-c5all':
        cfg = Config.fromfile(
            f'configs/mask_rcnn/mask-rcnn_r50-{name}_fpn_1x_coco.py'
        ).model
        cfg.test_cfg.rcnn.score_thr = 0.0
        detectors.append(MODELS.build(cfg))
    plain = copy.deepcopy(cfg)
    plain.backbone.type = plain.backbone.pop('base')
    del plain.backbone['blocks']
    plain = MODELS.build(plain)
    plain.init_weights()
    batch = dict(
        inputs=[torch.randint(0, 255, (3, 96, 128), dtype=torch.uint8)],
        data_samples=[
            DetDataSample(
                metainfo=dict(
                    img_shape=(96, 128),
                    ori_shape=(96, 128),
                    scale_factor=(1.0, 1.0),
                    batch_input_shape=(96, 128),
                )
            )
        ],
    )
    expected = plain.test_step(copy.deepcopy(batch))[0].pred_instances
    assert len(expected)
    for detector in detectors:
        detector.init_weights()
        result = detector.load_state_dict(plain.state_dict(), strict=False)
        assert all('non_local_block' in k for k in result.missing_keys)
        assert result.missing_keys and not result.unexpected_keys
        actual = detector.test_step(copy.deepcopy(batch))[0].pred_instances
        for key in 'bboxes', 'scores', 'labels', 'masks':
            assert torch.equal(actual[key], expected[key]), key


# Copies -------------------------------------------------------------------


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


def pickled(model):
    return pickle.loads(pickle.dumps(model))


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


# Wrong input --------------------------------------------------------------


@pytest.mark.parametrize(
    'block, message',
    [
        (
            dict(type=NL, after='layer5.0'),
            r"unknown place 'layer5.0': 'ResNet' has no child 'layer5', it has "
            r".*'layer4'; did you mean 'layer",
        ),
        (dict(type=NL, after='layer2.7'), "'layer2' has no child '7', it has "),
        (dict(type=NL, after='layer2.-3'), "'layer2' has no child '-3'"),
        (
            dict(type='nl_plugins.NonLocal4d', after='layer2'),
            "unknown block type 'nl_plugins.NonLocal4d'.*'nl_plugins.NonLocal2d'",
        ),
        (dict(after='layer2'), "a block needs a 'type'"),
        (dict(type=NL, after=[]), r'after must be the path .* but got \[\]'),
        (dict(type=NL, after=3), 'after must be the path .* but got 3'),
        (
            dict(type=NL, after='layer2', norm_cfg=dict(type='BM')),
            "NonLocal2d after='layer2.1': .*Cannot find",
        ),
        (dict(type=NL), "one of 'before' and 'after', but got none"),
        (dict(type=NL, after='layer2', before='layer3'), 'one of'),
        (
            dict(type=NL, after='layer2', in_channels=99),
            'has 16 channels, but in_channels of the NonLocal2d is 99',
        ),
        (
            dict(type=NL, after='layer2', mode='cosine'),
            "NonLocal2d after='layer2.1': mode must be one of .*'cosine'",
        ),
        (dict(type=NL, after='layer2.0.relu'), 'runs 2 times per forward'),
        (
            dict(type='nl_plugins.NonLocal3d', after='layer2'),
            r'NonLocal3d takes 3 dimensions .* shape \(B, 16, ',
        ),
        (
            dict(type='nl_plugins.NonLocal1d', after='layer2'),
            'NonLocal1d takes 1 dimensions',
        ),
    ],
)
def test_wrong_input_is_named_at_build_time(block, message):
    with pytest.raises(ValueError, match=message):
        build([block])


def test_an_unknown_argument_of_a_block_is_named():
    with pytest.raises(TypeError, match="after='layer2.1'.*redution"):
        build([dict(type=NL, after='layer2', redution=4)])


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_a_block_on_a_batch_norm_is_refused(norm):
    # It is exchanged by SyncBN conversions, which forget its hooks.
    with pytest.raises(ValueError, match='BatchNorm.* is exchanged when'):
        build([dict(type=NL, after='layer2.0.bn1')], norm_cfg=dict(type=norm))


def test_blocks_must_be_a_list_of_dicts():
    with pytest.raises(ValueError, match='blocks must be a list'):
        build(dict(type=NL, after='layer2'))
    with pytest.raises(ValueError, match="a block must be a dict, .*'NL'"):
        build(['NL'])


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


def retina_head(blocks):
    return build(
        blocks, base='RetinaHead', num_classes=2, in_channels=8, feat_channels=8
    )


@pytest.mark.parametrize('position', ['before', 'after'])
def test_a_place_that_runs_per_level_is_refused_in_the_first_forward(position):
    # The head takes a list of levels, so it was not seen running.
    head = retina_head([dict(type=NL, **{position: 'cls_convs.0'})])
    levels = [torch.randn(1, 8, s, s) for s in (8, 4)]
    for model in head, copy.deepcopy(head), pickled(head):
        with pytest.raises(
            ValueError,
            match=f"{position}='cls_convs.0': .* runs several times per forward",
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


def test_a_layout_that_there_is_not():
    with pytest.raises(ValueError, match="layout must be 'BCN', but got 'x'"):
        build([dict(type=NL, after='layer2', layout='x')])


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
    with pytest.warns(UserWarning, match='layer1.1.*frozen stage') as record:
        model = build([dict(type=NL, after=['layer1', 'layer1.-1'])], frozen_stages=1)
    # Frozen before the first train(), or DDP waits for their gradients.
    assert not any(p.requires_grad for p in model.layer1.parameters())
    assert len([r for r in record if 'frozen' in str(r.message)]) == 2
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        build([dict(type=NL, after='layer2')], frozen_stages=1)
