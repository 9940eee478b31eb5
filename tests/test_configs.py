"""Every config builds, starts from its pretrained file, trains one step."""

import contextlib
import copy
import functools
import re
from pathlib import Path

import hub
import pytest
import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from nl_plugins.analysis.baselines import find_baseline, published_results
from nl_plugins.engine.config import load_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts  # parts of configs
)

#: What in the path of a config says that it needs a toolbox not always there.
TOOLBOXES = {
    'kinetics400|c2d': 'mmaction',
    'td-hm': 'mmpose',
    '/imagenet/|/resnet18': 'mmpretrain',
}


def load(path):
    for names, toolbox in TOOLBOXES.items():
        if re.search(names, path):
            pytest.importorskip(toolbox)
    cfg = copy.deepcopy(parse(path))
    init_default_scope(cfg.default_scope)
    return cfg


@functools.cache
def parse(path):
    """A config, of which only copies may change."""
    return Config.fromfile(ROOT / path)


def build_backbone(cfg):
    """The backbone without memory: for its structure alone."""
    # MMPreTrain's ResNet computes numbers with tensors.
    with torch.device('cpu' if cfg.default_scope == 'mmpretrain' else 'meta'):
        return MODELS.build(cfg.model.backbone)


def find_blocks(model):
    """Names of the blocks, of which our heads have one too."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _NonLocalNd) or type(module).__name__ == 'ContextBlock'
    ]


def assert_identities(model, path=''):
    """Whether all blocks leave their input as it is, if they should."""
    for name in find_blocks(model):
        block = model.get_submodule(name)
        if not getattr(block, 'zeros_init', True):
            assert re.search('dnl-official', path)
            continue
        # ContextBlock is from mmcv
        size = (3,) * getattr(block, 'ndim', 2)
        shape = (1, block.in_channels, *size)
        if getattr(block, 'num_frames', None):
            shape = (block.num_frames, block.in_channels, 3, 3)
        if getattr(block, 'group_size', None):
            shape = (1, block.in_channels, block.group_size, 3, 3)
        x = torch.randn(shape)
        training = block.training
        block.train(False)
        with torch.no_grad():
            assert torch.equal(block(x), x), name
        block.train(training)


def train_one_step(cfg, model):
    """Losses of a batch of two small images."""
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        batch = demo_mm_inputs(2, [[3, 32, 32]] * 2, num_classes=2, with_mask=True)
    elif cfg.default_scope == 'mmaction':
        from mmaction.structures import ActionDataSample

        frames = cfg.train_dataloader.dataset.pipeline[1]
        size = (frames.num_clips, 3, frames.clip_len, 48, 48)
        if frames.clip_len == 1:  # frames that a 2D recognizer takes
            size = (frames.num_clips, 3, 48, 48)
        batch = dict(
            inputs=[torch.randint(0, 256, size, dtype=torch.uint8) for _ in range(2)],
            data_samples=[ActionDataSample().set_gt_label(label) for label in range(2)],
        )
    elif cfg.default_scope == 'mmpose':
        from mmpose.testing import get_packed_inputs

        size = cfg.codec.input_size
        batch = get_packed_inputs(
            num_keypoints=model.head.out_channels,
            img_shape=size[::-1],
            input_size=size,
            heatmap_size=cfg.codec.heatmap_size,
        )
    elif cfg.default_scope == 'mmpretrain':
        from mmpretrain.structures import DataSample

        batch = dict(
            inputs=[torch.randint(0, 256, (3, 64, 64)) for _ in range(2)],
            data_samples=[DataSample().set_gt_label(label) for label in range(2)],
        )
    else:
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        labels = torch.randint(0, model.num_classes, (2, 1, 32, 64))
        batch = dict(
            inputs=[torch.randint(0, 256, (3, 32, 64)) for _ in range(2)],
            data_samples=[
                SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels
            ],
        )
        model.data_preprocessor.size = (32, 64)
    data = model.data_preprocessor(batch, training=True)
    return model.parse_losses(model(**data, mode='loss'))


@pytest.fixture(scope='module')
def started():
    """Models that have started: many configs differ in their data alone."""
    return set()


def layers(value):
    """The config of a model without what data and classes decide."""
    if isinstance(value, dict):
        return {
            key: layers(item)
            for key, item in value.items()
            if key
            not in (
                'num_classes',
                'align_corners',
                'data_preprocessor',
                'train_cfg',
                'test_cfg',
            )
        }
    if isinstance(value, (list, tuple)):
        return [layers(item) for item in value]
    return value


# One worker knows which models have started.
@pytest.mark.xdist_group('configs')
@pytest.mark.parametrize('path', CONFIGS)
def test_config_starts_from_its_pretrained_file_and_trains_one_step(
    path, started, torch_home
):
    cfg = load(path)
    if cfg.default_scope == 'mmdet':
        stages = cfg.model.train_cfg.get('rcnn', [])
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 16  # seconds, not minutes
        if 'rpn' in cfg.model.train_cfg:
            cfg.model.train_cfg.rpn.allowed_border = -1  # the images are small
    is_new = str(layers(cfg.model)) not in started
    started.add(str(layers(cfg.model)))
    # device('cpu') would send every call through a Python mode.
    with contextlib.nullcontext() if is_new else torch.device('meta'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    blocks = find_blocks(model)
    named_by_file = any(
        part in path for part in ('-nl-', '-snl-', '-gcb-', 'dnl', 'nonlocal')
    )
    assert bool(blocks) == named_by_file
    assert not blocks or 'nl_plugins' in cfg.custom_imports.imports
    if not is_new:
        return
    names = set(hub.names_in(cfg.model))
    # The demos and ResNet on ImageNet start from scratch.
    assert len(names) == (0 if re.search('/demo/|/imagenet/', path) else 1)
    (file,) = [hub.write(torch_home, name) for name in names] or [None]
    model.init_weights()
    if file:
        hub.assert_landed(model.backbone, file)
    assert_identities(model, path)
    model.train()
    loss, logs = train_one_step(cfg, model)
    loss.backward()
    assert torch.isfinite(loss), logs
    for name in blocks:
        # The output layer is the first to move: the rest of a block that
        # starts as an identity has no gradient yet.
        gradients = [p.grad for p in model.get_submodule(name).parameters()]
        assert any(g is not None and g.any() for g in gradients), name


#: One config for each backbone and its way of loading.
BACKBONES = [
    'mask_rcnn/mask-rcnn_r50-dnl-c4-c5all_fpn_1x_coco.py',
    'mask_rcnn/mask-rcnn_x101-32x4d-nl-c4_fpn_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50-nl-r4-c3-c5_fpn_1x_coco.py',
    'retinanet/retinanet_r50-dnl-c4_fpn_1x_coco.py',
    'dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'fcn/fcn_r50-d8-dnl-c4_4xb2-40k_cityscapes-512x1024.py',
    'c2d/c2d_r50-in1k-pre-nl-5blocks_8xb32-8x8x1-100e_kinetics400-rgb.py',
    'i3d/i3d_imagenet-pretrained-r50-nl-5blocks_8xb8-8x8x1-100e_kinetics400-rgb.py',
    'i3d/i3d_imagenet-pretrained-r50-nl-5blocks_8xb2-32x4x1-27e_kinetics400-rgb.py',
    'c2d/c2d_r50-in1k-pre-nl-5blocks_8xb8-32x2x1-100e_kinetics400-rgb.py',
    'slowonly/slowonly_imagenet-pretrained-r50-dnl-5blocks_8xb16-8x8x1-'
    'steplr-150e_kinetics400-rgb.py',
    'tsm/tsm_imagenet-pretrained-r50-nl-5blocks_8xb16-1x1x8-50e_kinetics400-rgb.py',
    'pose/td-hm_res50-8convs-nl-head-c4_8xb64-210e_coco-256x192.py',
    'imagenet/resnet50-nl-5blocks_8xb32_in1k.py',
    'finetune/mask-rcnn_r50-dnl-c4_fpn_ft-blocks-4e_coco.py',
]


@pytest.mark.parametrize('path', BACKBONES)
def test_config_loads_checkpoints_without_and_with_blocks(path, torch_home, tmp_path):
    # as the runner does for load_from
    cfg = load(f'configs/{path}')
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    for name in hub.names_in(cfg.model):
        hub.write(torch_home, name)
    model.init_weights()
    trained = {
        key: torch.rand(value.shape) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    of_blocks = tuple(f'{name}.' for name in find_blocks(model))
    upstream = {
        key: value for key, value in trained.items() if not key.startswith(of_blocks)
    }
    for state in upstream, trained:
        torch.save(dict(state_dict=state), tmp_path / 'trained.pth')
        load_checkpoint(model, str(tmp_path / 'trained.pth'), 'cpu')
        loaded = model.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())
        if state is upstream:
            assert_identities(model)


def test_no_two_configs_have_the_same_name():
    """mim looks for them by the name of their file, whatever the folder."""
    names = [Path(path).name for path in CONFIGS]
    assert len(set(names)) == len(names)


#: Where blocks stand, by the name of the config and the depth.
PLACES = {
    ('5blocks', 50): ['layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5'],
    ('5blocks', 101): ['layer2.1', 'layer2.3', 'layer3.6', 'layer3.13', 'layer3.20'],
    ('embedded-gaussian', 50): [
        *('layer2.0', 'layer2.2', 'layer3.0', 'layer3.2', 'layer3.4')
    ],
    ('10blocks', 50): [f'layer2.{i}' for i in range(4)]
    + [f'layer3.{i}' for i in range(6)],
    ('10blocks', 101): [f'layer2.{i}' for i in range(4)]
    + [f'layer3.{i}' for i in (3, 6, 10, 13, 17, 20)],
    ('c2', 50): ['layer1.2'],
    ('c3', 50): ['layer2.3'],
    ('c4', 50): ['layer3.5'],
    ('c4', 101): ['layer3.22'],
    ('c4', 152): ['layer3.35'],
    ('c5', 50): ['layer4.2'],
    ('c4-c5all', 50): ['layer3.5', 'layer4.0', 'layer4.1', 'layer4.2'],
    ('c3-c5', 50): [
        f'layer{stage}.{i}'
        for stage, count in ((2, 4), (3, 6), (4, 3))
        for i in range(count)
    ],
}
DETECTION = ('mask_rcnn', 'retinanet', 'cascade_rcnn')
VIDEO = [p for p in CONFIGS if p.split('/')[1] in ('c2d', 'i3d', 'slowonly', 'tsm')]


@pytest.mark.parametrize(
    'path',
    VIDEO
    + [p for p in CONFIGS if p.split('/')[1] in (*DETECTION, 'imagenet')]
    + [p for p in CONFIGS if '/pose/' in p and '-nl-head_' not in p],
)
def test_blocks_stand_where_the_name_of_the_config_says(path):
    backbone = build_backbone(load(path))
    places = [
        name.rpartition('.')[0]
        for name, _ in backbone.named_modules()
        if name.endswith(('.non_local_block', '.nonlocal_block', '.context_block'))
    ]
    depth = next((d for d in (101, 152) if str(d) in path), 50)
    assert len(backbone.layer3) == {50: 6, 101: 23, 152: 36}[depth]
    expected = []
    if any(part in path for part in ('-nl-', '-dnl-', '-snl-', '-gcb-')):
        # '-c3-c5_' ends as '-c5_' does.
        _, expected = max(
            (len(name), found)
            for (name, d), found in PLACES.items()
            if d == depth and re.search(rf'-{name}(-space|-time)?_', path)
        )
    assert places == expected


@pytest.mark.parametrize('path', VIDEO)
def test_video_configs_are_what_their_names_say(path):
    cfg = load(path)
    name = Path(path).name
    batch, clip = re.search(r'_8xb(\d+)-(\d+x\d+x\d+)-', name).groups()
    assert cfg.train_dataloader.batch_size == int(batch)
    assert cfg.auto_scale_lr.base_batch_size == 8 * int(batch)
    for split in 'train', 'val', 'test':
        dataset = cfg[f'{split}_dataloader'].dataset
        frames = dataset.pipeline[1]
        wanted = [int(n) for n in clip.split('x')]
        if split == 'test' and wanted[0] > 1:
            wanted[2] = 10
        assert [frames.clip_len, frames.frame_interval, frames.num_clips] == wanted
        assert 'kinetics400' in dataset.ann_file
    assert cfg.model.cls_head.num_classes == 400
    backbone = build_backbone(cfg)
    assert ('3x3x3' in name) == (getattr(backbone, 'inflate_style', '') == '3x3x3')
    blocks = [m for m in backbone.modules() if isinstance(m, _NonLocalNd)]
    for block in blocks:
        mode = re.search('(embedded-)?gaussian|dot-product|concatenation', name)
        assert block.mode == (
            mode[0].replace('-', '_') if mode else 'embedded_gaussian'
        )
        axes = re.search('blocks-(space|time)', name)
        assert block.axes == (axes[1] if axes else 'spacetime')
        # the keys of the paper's own checkpoints, and of MMAction2's
        pool = 'embedded-gaussian' in name or 'before'
        assert block.sub_sample == (pool if block.axes != 'time' else False)
        assert block.conv_out.with_norm == (
            '-32x4x1-' not in name and '-128x1x1-' not in name
        )
        assert hasattr(block, 'temperature') == ('-dnl-' in name)
    groups = [block.group_size for block in blocks]
    long = wanted[0] * wanted[1] == 128
    assert groups == (
        [4, 4, None, None, None] if long and blocks else [None] * len(blocks)
    )


@pytest.mark.parametrize('path', [p for p in CONFIGS if '/pose/' in p and '8c' in p])
def test_blocks_follow_every_two_of_eight_convolutions_of_a_head(path):
    with torch.device('meta'):
        model = MODELS.build(load(path).model)
    names = [type(module).__name__ for module in model.head.conv_layers]
    assert names == ['Conv2d', 'BatchNorm2d', 'ReLU'] * 8
    # Before a convolution is after the ReLU in front of it.
    convs = [f'conv_layers.{3 * number}' for number in (2, 4, 6)]
    wanted = [*convs, 'final_layer'] if '-nl-head' in path else []
    assert [name.rpartition('.')[0] for name in find_blocks(model.head)] == wanted


@pytest.mark.parametrize('path', [p for p in CONFIGS if '/imagenet/' in p])
def test_imagenet_configs_have_the_function_of_their_name(path):
    for block in build_backbone(load(path)).modules():
        if isinstance(block, _NonLocalNd):
            mode = re.search('gaussian|dot-product|concatenation', path)
            assert block.mode == (
                mode[0].replace('-', '_') if mode else 'embedded_gaussian'
            )
            assert hasattr(block, 'temperature') == ('-dnl-' in path)


@pytest.mark.parametrize('path', [p for p in VIDEO if '/c2d/' in p])
def test_the_frames_of_c2d_are_those_at_the_place_of_the_block(path):
    # num_frames fits the place in the model: C2D halves its frames.
    cfg = load(path)
    frames = cfg.train_dataloader.dataset.pipeline[1].clip_len
    backbone = build_backbone(cfg)
    if type(backbone).__name__ == 'ResNet3d':  # its tensors have a dimension for them
        frames = None
    for block in backbone.modules():
        if isinstance(block, _NonLocalNd):
            assert block.num_frames == (
                frames and frames // (1 if '-c2_' in path else 2)
            )


@pytest.mark.parametrize(
    'path', [p for p in VIDEO if '32x2x1' in p and '/c2d/' in p and '-nl' not in p]
)
def test_c2d_of_32_frames_pools_pairs_of_frames(path):
    # as the paper's video code; ResNet3d alone would see every fourth frame
    cfg = load(path)
    cfg.model.backbone.pretrained = None
    backbone = MODELS.build(cfg.model.backbone)
    backbone.train(False)
    x = torch.randn(1, 3, 32, 32, 32)
    seen = []
    with torch.no_grad():
        expected = backbone(x)
        for frame in range(4):
            changed = x.clone()
            changed[:, :, frame] += 1
            seen.append(not torch.equal(backbone(changed), expected))
    assert seen == [True, False, True, False]


def without_scopes(value):
    """A part of a config without the scopes that inheritance adds."""
    if isinstance(value, dict):
        return {k: without_scopes(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [without_scopes(item) for item in value]
    return value


@pytest.mark.parametrize('path', [p for p in VIDEO if '-nl-embedded-gaussian_' in p])
def test_the_recipe_of_mmaction_for_its_own_non_local_models(path):
    # but for the epochs, which are as published: its files have others
    cfg = load(path)
    name = Path(path).name.replace('-100e', '-50e')
    if '/slowonly/' in path:
        name = name.replace('imagenet-pretrained-r50', 'r50-in1k-pre')
    upstream = load_config(f'mmaction::recognition/{path.split("/")[1]}/{name}')
    for key in 'train_dataloader', 'test_dataloader', 'optim_wrapper':
        assert without_scopes(cfg[key]) == without_scopes(upstream[key])
    if '/slowonly/' in path:
        schedule, expected = cfg.param_scheduler, upstream.param_scheduler
        assert without_scopes(schedule) == without_scopes(expected)
    epochs = int(re.search(r'-(\d+)e_', path)[1])
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == epochs
    backbone = upstream.model.backbone
    blocks = backbone.pop('non_local_cfg'), backbone.pop('non_local')
    assert without_scopes({**cfg.model.backbone, **backbone}) == without_scopes(
        {**cfg.model.backbone, 'type': backbone.type}
    )
    for block in build_backbone(cfg).modules():
        if isinstance(block, _NonLocalNd):
            assert block.use_scale == blocks[0].use_scale
            assert block.mode == blocks[0].mode
            assert block.sub_sample == blocks[0].sub_sample
    assert blocks[1] == ((0, 0, 0), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 0, 0))


LONG = [p for p in VIDEO if '8xb2-' in p]


@pytest.mark.parametrize('path', LONG)
def test_long_clips_fine_tune_the_model_of_short_clips(path):
    # the settings of the paper's video code
    cfg = load(path)
    assert without_scopes(cfg.optim_wrapper.optimizer) == dict(
        type='SGD',
        lr=0.0025,
        momentum=0.9,
        weight_decay=0.0001,
        nesterov=True,
    )
    assert cfg.optim_wrapper.clip_grad is None
    (schedule,) = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == schedule.end == 27
    # 150k, 300k and 400k iterations of 16 of the code's 234643 clips
    steps = [*schedule.milestones, schedule.end]
    assert steps == [int(n * 16 / 234643) for n in (150_000, 300_000, 400_000)]
    backbone = MODELS.build(cfg.model.backbone)
    backbone.train()
    blocks = tuple(f'{name}.' for name in find_blocks(backbone))
    for name, module in backbone.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            assert not module.training and not name.startswith(blocks or '\0')
            assert not any(p.requires_grad for p in module.parameters())
    # of the same depth and kind, without blocks
    start = cfg.load_from.split('/')[-2]
    assert '-nl-' not in start
    assert (
        start.split('_')[:2]
        == Path(path).name.replace('-nl-5blocks', '').split('_')[:2]
    )
    assert ('8x8x1' in start) == ('32x4x1' in path)
    if '://' in cfg.load_from:
        config = f'mmaction::recognition/{path.split("/")[1]}/{start}.py'
        assert cfg.load_from in [r.weights for r in published_results(config)]
    else:
        assert cfg.load_from == f'work_dirs/{start}/epoch_100.pth'
        assert (
            load_config(
                str(ROOT / path).replace(Path(path).name, f'{start}.py')
            ).train_cfg.max_epochs
            == 100
        )


FINETUNE = [p for p in CONFIGS if '/finetune/' in p]


@pytest.mark.parametrize('path', FINETUNE)
def test_fine_tuning_starts_from_the_published_model_without_blocks(path):
    cfg = load(path)
    upstream = find_baseline(str(ROOT / path))
    assert cfg.load_from in [result.weights for result in published_results(upstream)]
    # shorter than the training that it continues, with a tenth of its rate
    before = load_config(upstream)
    assert cfg.optim_wrapper.optimizer.lr == before.optim_wrapper.optimizer.lr / 10
    for length in 'max_epochs', 'max_iters':
        if length in cfg.train_cfg:
            assert cfg.train_cfg[length] <= before.train_cfg[length] / 3
            number = re.search(r'ft-(?:blocks-)?(\d+)(k|e)_', path)
            steps = int(number[1]) * (1000 if number[2] == 'k' else 1)
            assert cfg.train_cfg[length] == steps == cfg.param_scheduler[-1].end


@pytest.mark.parametrize('path', FINETUNE)
def test_fine_tuning_trains_blocks_with_the_rate_that_the_model_had(path):
    cfg = load(path)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {p: name for name, p in model.named_parameters()}
    of_blocks = tuple(f'{name}.' for name in find_blocks(model))
    assert bool(of_blocks) == ('-nl-' in path or '-dnl-' in path)
    lr = cfg.optim_wrapper.optimizer.lr
    for group in optimizer.param_groups:
        for parameter in group['params']:
            is_block = names[parameter].startswith(of_blocks or '-')
            assert group['lr'] == pytest.approx(lr * (10 if is_block else 1))
            assert parameter.requires_grad or not is_block
            assert not parameter.requires_grad or is_block or '-blocks-' not in path


SEGMENTATION = [
    p
    for p in CONFIGS
    if p.split('/')[1] in ('nonlocal_net', 'dnlnet', 'fcn', 'deeplabv3plus')
]


@pytest.mark.parametrize('path', SEGMENTATION)
def test_segmentation_configs_are_what_their_names_say(path):
    cfg = load(path)
    name = Path(path).name
    classes = next(
        n
        for key, n in {
            'cityscapes': 19,
            'ade20k': 150,
            'voc12aug': 21,
            'context-59': 59,
        }.items()
        if key in name
    )
    assert cfg.model.decode_head.num_classes == classes
    assert cfg.model.auxiliary_head.num_classes == classes
    assert cfg.model.backbone.depth == (101 if '_r101-' in name else 50)
    iterations = int(name.split('_')[2].split('-')[1].rstrip('k')) * 1000
    assert cfg.train_cfg.max_iters == iterations
    batch = int(name.split('_')[2].split('-')[0].split('xb')[1])
    assert cfg.train_dataloader.batch_size == batch
    size = tuple(map(int, name[:-3].rpartition('-')[2].split('x')))
    assert tuple(cfg.crop_size) == size == (tuple(cfg.model.data_preprocessor.size))
    blocks = cfg.model.backbone.get('blocks', [])
    assert all(block.norm_cfg.type == 'SyncBN' for block in blocks)
    head = cfg.model.decode_head.type
    if name.startswith(('nonlocal', 'dnl')):
        assert head == 'nl_plugins.' + (
            'NLHead' if name.startswith('nonlocal') else 'DNLHead'
        )


@pytest.mark.parametrize(
    'path, block',
    [
        ('dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'dnl_block'),
        ('dnlnet/dnl_r101-d8_4xb4-80k_pascal-context-59-480x480.py', 'dnl_block'),
        (
            'dnlnet/ablations/dnl-mul-shared_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            'dnl_block',
        ),
        ('fcn/fcn_r50-d8-dnl-c4_4xb2-40k_cityscapes-512x1024.py', 'non_local_block'),
        (
            'fcn/fcn_r50-d8-nl-dnl-c4_4xb2-80k_cityscapes-512x1024.py',
            'non_local_block_1',
        ),
        (
            'deeplabv3plus/deeplabv3plus_r50-d8-dnl-c4_4xb2-80k_cityscapes-512x1024.py',
            'non_local_block',
        ),
    ],
)
def test_query_and_key_of_dnl_have_no_weight_decay(path, block):
    cfg = load(f'configs/{path}')
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {p: name for name, p in model.named_parameters()}
    free = {
        names[p].partition(f'.{block}.')[2]
        for group in optimizer.param_groups
        if not group['weight_decay']
        for p in group['params']
    }
    assert free == {
        f'{layer}.conv.{kind}'
        for layer in ('theta', 'phi')
        for kind in ('weight', 'bias')
    }


#: What the segmentation code of the DNL paper has in its configs and scripts:
#: samples of a GPU, rate, weight decay, whitening, divisor of the logits.
OFFICIAL = {
    'dnl-official_r101-d8_4xb2-60k_cityscapes-769x769': (2, 0.01, 5e-4, 'layer', 1),
    'dnl-official-channel_r101-d8_4xb2-60k_cityscapes-769x769': (
        *(2, 0.01, 5e-4, 'channel'),
        0.05 * 16,
    ),
    'dnl-official_r101-d8_8xb2-150k_ade20k-520x520': (2, 0.02, 1e-4, 'layer', 1),
    'dnl-official-channel_r101-d8_8xb2-150k_ade20k-520x520': (
        *(2, 0.02, 1e-4, 'channel'),
        0.1 * 16,
    ),
    'dnl-official_r101-d8_4xb4-30k_pascal-context-59-520x520': (
        *(4, 0.001, 1e-4, 'layer'),
        1,
    ),
    'dnl-official-channel_r101-d8_4xb4-30k_pascal-context-59-520x520': (
        *(4, 0.01, 1e-4, 'channel'),
        0.1 * 16,
    ),
}


@pytest.mark.parametrize('name', OFFICIAL)
def test_official_recipes_are_those_of_the_papers_code(name):
    samples, rate, decay, whiten, divisor = OFFICIAL[name]
    cfg = load(f'configs/dnlnet/{name}.py')
    assert cfg.train_dataloader.batch_size == samples
    (policy,) = cfg.param_scheduler
    assert (policy.power, policy.eta_min, policy.end) == (
        0.9,
        0,
        cfg.train_cfg.max_iters,
    )
    assert cfg.optim_wrapper.optimizer.momentum == 0.9
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    head, auxiliary = model.decode_head, model.auxiliary_head
    block = head.dnl_block
    assert (block.key_channels, block.value_channels) == (256, 512)
    assert (block.whiten, 1 / block.logit_scale) == (whiten, pytest.approx(divisor))
    assert {name for name, _ in block.named_parameters()} == {
        *('theta.conv.weight', 'theta.conv.bias', 'phi.conv.weight', 'phi.conv.bias'),
        *('g.conv.weight', 'conv_mask.weight', 'conv_mask.bias', 'gamma'),
    }
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {p: name for name, p in model.named_parameters()}
    free = set()
    for group in optimizer.param_groups:
        assert group['lr'] == rate
        assert group['weight_decay'] in (0, decay)
        if not group['weight_decay']:
            free |= {names[p].split('.')[-3] for p in group['params']}
    assert free == ({'theta', 'phi'} if whiten == 'layer' else set())
    loss = head.loss_decode
    assert (loss.thresh, loss.min_kept, loss.loss_weight) == (0.7, 100000, 1)
    assert auxiliary.channels == 512
    assert (auxiliary.loss_decode.thresh, auxiliary.loss_decode.loss_weight) == (
        None,
        0.4,
    )
    for part in head, auxiliary:
        assert part.align_corners
        assert bool(part.loss_decode.class_weight) == ('cityscapes' in name)


def test_ablations_change_what_their_names_say():
    heads = {}
    for path in CONFIGS:
        if '/ablations/' in path:
            name = Path(path).name.partition('_')[0]
            cfg = load(path).model.decode_head
            heads[name] = cfg.get('block') or {}, cfg.get('temperature', 0.05)
    assert heads == {
        'dnl-add-separate': ({}, 0.05),
        'dnl-add-shared': (dict(unary='shared'), 0.05),
        'dnl-mul-separate': (dict(coupling='mul'), 0.05),
        'dnl-mul-shared': (dict(coupling='mul', unary='shared'), 0.05),
        'dnl-pairwise': (dict(terms=('pairwise',)), 0.05),
        'dnl-temperature1': ({}, 1.0),
        'dnl-unary-separate': (dict(terms=('unary',)), 0.05),
        'dnl-unary-shared': (dict(terms=('unary',), unary='shared'), 0.05),
    }
