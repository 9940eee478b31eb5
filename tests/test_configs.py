"""Every config of the repository builds, and trains one step."""
import re
from pathlib import Path

import pytest
import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py'))


def load(path):
    """The config, and its model without what would be downloaded."""
    if re.search('kinetics400|c2d', path):
        pytest.importorskip('mmaction')
    cfg = Config.fromfile(ROOT / path)
    init_default_scope(cfg.default_scope)
    without_pretrained_weights(cfg.model)
    return cfg


def build_backbone(cfg):
    """The backbone without memory: for its structure alone."""
    with torch.device('meta'):
        return MODELS.build(cfg.model.backbone)


def without_pretrained_weights(cfg):
    cfg.pop('pretrained', None)
    for key, value in list(cfg.items()):
        if isinstance(value, dict):
            without_pretrained_weights(value)
            if key == 'init_cfg' and value.get('type') == 'Pretrained':
                cfg[key] = None


def train_one_step(cfg, model):
    """Losses of a batch of two small images."""
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs
        batch = demo_mm_inputs(
            2, [[3, 64, 64]] * 2, num_classes=2, with_mask=True)
    elif cfg.default_scope == 'mmaction':
        from mmaction.structures import ActionDataSample
        frames = cfg.train_dataloader.dataset.pipeline[1]
        size = (frames.num_clips, 3, frames.clip_len, 64, 64)
        if frames.clip_len == 1:  # frames that a 2D recognizer takes
            size = (frames.num_clips, 3, 64, 64)
        batch = dict(
            inputs=[
                torch.randint(0, 256, size, dtype=torch.uint8)
                for _ in range(2)
            ],
            data_samples=[
                ActionDataSample().set_gt_label(label) for label in range(2)
            ])
    else:
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample
        labels = torch.randint(0, model.num_classes, (2, 1, 32, 64))
        batch = dict(
            inputs=[torch.randint(0, 256, (3, 32, 64)) for _ in range(2)],
            data_samples=[
                SegDataSample(gt_sem_seg=PixelData(data=label))
                for label in labels
            ])
        model.data_preprocessor.size = (32, 64)
    data = model.data_preprocessor(batch, training=True)
    return model.parse_losses(model(**data, mode='loss'))


#: Models that have trained a step: many configs differ in the data alone.
trained = set()


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds_and_trains_one_step(path):
    cfg = load(path)
    if cfg.default_scope == 'mmdet':
        cfg.model.train_cfg.rcnn.sampler.num = 16  # seconds, not minutes
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    blocks = [
        name for name, module in model.named_modules()
        if isinstance(module, _NonLocalNd)
        or type(module).__name__ == 'ContextBlock'
    ]
    named_by_file = any(
        part in path for part in ('-nl-', '-dnl-', '-gcb-', 'dnl', 'nonlocal'))
    assert bool(blocks) == named_by_file
    assert not blocks or 'nl_plugins' in cfg.custom_imports.imports
    if str(cfg.model) in trained:
        return
    trained.add(str(cfg.model))
    model.train()
    loss, logs = train_one_step(cfg, model)
    loss.backward()
    assert torch.isfinite(loss), logs
    for name in blocks:
        # The output layer is the first to move: the rest of a block that
        # starts as an identity has no gradient yet.
        gradients = [p.grad for p in model.get_submodule(name).parameters()]
        assert any(g is not None and g.any() for g in gradients), name


def test_no_two_configs_have_the_same_name():
    """mim looks for them by the name of their file, whatever the folder."""
    names = [Path(path).name for path in CONFIGS]
    assert len(set(names)) == len(names)


#: Where blocks stand, by the name of the config and the depth.
PLACES = {
    ('5blocks', 50): ['layer2.1', 'layer2.3', 'layer3.1', 'layer3.3',
                      'layer3.5'],
    ('5blocks', 101): ['layer2.1', 'layer2.3', 'layer3.6', 'layer3.13',
                       'layer3.20'],
    ('10blocks', 50): [f'layer2.{i}' for i in range(4)]
    + [f'layer3.{i}' for i in range(6)],
    ('10blocks', 101): [f'layer2.{i}' for i in range(4)]
    + [f'layer3.{i}' for i in (3, 6, 10, 13, 17, 20)],
    ('c2', 50): ['layer1.2'],
    ('c3', 50): ['layer2.3'],
    ('c4', 50): ['layer3.5'],
    ('c4', 101): ['layer3.22'],
    ('c5', 50): ['layer4.2'],
    ('c4-c5all', 50): ['layer3.5', 'layer4.0', 'layer4.1', 'layer4.2'],
}
VIDEO = [
    p for p in CONFIGS
    if p.split('/')[1] in ('c2d', 'i3d', 'slowonly', 'tsm')
]


@pytest.mark.parametrize(
    'path', VIDEO + [p for p in CONFIGS if '/mask_rcnn/' in p])
def test_blocks_stand_where_the_name_of_the_config_says(path):
    backbone = build_backbone(load(path))
    places = [
        name.rpartition('.')[0] for name, _ in backbone.named_modules()
        if name.endswith(('.non_local_block', '.context_block'))
    ]
    depth = 101 if '101' in path else 50
    assert len(backbone.layer3) == {50: 6, 101: 23}[depth]
    expected = []
    if any(part in path for part in ('-nl-', '-dnl-', '-gcb-')):
        expected, = [
            found for (name, d), found in PLACES.items() if d == depth
            and re.search(rf'-{name}(-space|-time)?_', path)
        ]
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
        assert [frames.clip_len, frames.frame_interval,
                frames.num_clips] == wanted
        assert 'kinetics400' in dataset.ann_file
    assert cfg.model.cls_head.num_classes == 400
    backbone = build_backbone(cfg)
    assert ('3x3x3' in name) == (
        getattr(backbone, 'inflate_style', '') == '3x3x3')
    blocks = [m for m in backbone.modules() if isinstance(m, _NonLocalNd)]
    for block in blocks:
        mode = re.search('gaussian|dot-product|concatenation', name)
        assert block.mode == (
            mode[0].replace('-', '_') if mode else 'embedded_gaussian')
        axes = re.search('blocks-(space|time)', name)
        assert block.axes == (axes[1] if axes else 'spacetime')
        # the keys of the paper's own checkpoints
        assert block.sub_sample == ('before' if block.axes != 'time' else
                                    False)
        assert block.conv_out.with_norm == ('-32x4x1-' not in name
                                            and '-128x1x1-' not in name)
        assert hasattr(block, 'temperature') == ('-dnl-' in name)
    groups = [block.group_size for block in blocks]
    long = wanted[0] * wanted[1] == 128
    assert groups == ([4, 4, None, None, None] if long and blocks else
                      [None] * len(blocks))


@pytest.mark.parametrize('path', [p for p in VIDEO if '/c2d/' in p])
def test_the_frames_of_c2d_are_those_at_the_place_of_the_block(path):
    # num_frames fits the place in the model: C2D halves its frames.
    cfg = load(path)
    frames = cfg.train_dataloader.dataset.pipeline[1].clip_len
    backbone = build_backbone(cfg)
    for block in backbone.modules():
        if isinstance(block, _NonLocalNd):
            assert block.num_frames == frames // (
                1 if '-c2_' in path else 2)


SEGMENTATION = [
    p for p in CONFIGS
    if p.split('/')[1] in ('nonlocal_net', 'dnlnet', 'fcn', 'deeplabv3plus')
]


@pytest.mark.parametrize('path', SEGMENTATION)
def test_segmentation_configs_are_what_their_names_say(path):
    cfg = load(path)
    name = Path(path).name
    classes = next(n for key, n in {
        'cityscapes': 19, 'ade20k': 150, 'voc12aug': 21, 'context-59': 59
    }.items() if key in name)
    assert cfg.model.decode_head.num_classes == classes
    assert cfg.model.auxiliary_head.num_classes == classes
    assert cfg.model.backbone.depth == (101 if '_r101-' in name else 50)
    iterations = int(name.split('_')[2].split('-')[1].rstrip('k')) * 1000
    assert cfg.train_cfg.max_iters == iterations
    batch = int(name.split('_')[2].split('-')[0].split('xb')[1])
    assert cfg.train_dataloader.batch_size == batch
    size = tuple(map(int, name[:-3].rpartition('-')[2].split('x')))
    assert tuple(cfg.crop_size) == size == (
        tuple(cfg.model.data_preprocessor.size))
    head = cfg.model.decode_head.type
    if name.startswith(('nonlocal', 'dnl')):
        assert head == 'nl_plugins.' + (
            'NLHead' if name.startswith('nonlocal') else 'DNLHead')


@pytest.mark.parametrize('path', [
    'dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'dnl_r101-d8_4xb4-80k_pascal-context-59-480x480.py',
    'ablations/dnl-mul-shared_r50-d8_4xb2-40k_cityscapes-512x1024.py'
])
def test_query_and_key_of_dnl_have_no_weight_decay(path):
    cfg = load(f'configs/dnlnet/{path}')
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {p: name for name, p in model.named_parameters()}
    free = {
        names[p].removeprefix('decode_head.dnl_block.')
        for group in optimizer.param_groups if not group['weight_decay']
        for p in group['params']
    }
    assert free == {
        f'{layer}.conv.{kind}' for layer in ('theta', 'phi')
        for kind in ('weight', 'bias')
    }


def test_ablations_change_what_their_names_say():
    heads = {}
    for path in CONFIGS:
        if '/ablations/' in path:
            name = Path(path).name.partition('_')[0]
            cfg = load(path).model.decode_head
            heads[name] = cfg.get('block') or {}, cfg.get('temperature', .05)
    assert heads == {
        'dnl-add-separate': ({}, .05),
        'dnl-add-shared': (dict(unary='shared'), .05),
        'dnl-mul-separate': (dict(coupling='mul'), .05),
        'dnl-mul-shared': (dict(coupling='mul', unary='shared'), .05),
        'dnl-pairwise': (dict(terms=('pairwise', )), .05),
        'dnl-temperature1': ({}, 1.),
        'dnl-unary': (dict(terms=('unary', )), .05),
    }
