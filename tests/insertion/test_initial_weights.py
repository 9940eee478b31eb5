"""Initial weights: an identity at the start, and checkpoints that hold blocks."""

import copy

import hub
import pytest
import torch
from insertion.inserting import (
    NL,
    assert_equal,
    build,
    image,
    outputs,
)
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import save_checkpoint
from reference import randomize

from nl_plugins.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')


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


@pytest.mark.slow
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
