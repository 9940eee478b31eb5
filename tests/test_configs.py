"""Every config of the repository builds, and trains one step."""
from pathlib import Path

import pytest
import torch
import yaml
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
    cfg = Config.fromfile(ROOT / path)
    init_default_scope(cfg.default_scope)
    without_pretrained_weights(cfg.model)
    return cfg


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


def test_metafiles_list_every_config_of_their_folder():
    folders = {Path(path).parent for path in CONFIGS}
    for folder in folders - {Path('configs/demo')}:
        models = yaml.safe_load((ROOT / folder /
                                 'metafile.yml').read_text())['Models']
        assert [model['Config'] for model in models
                ] == [path for path in CONFIGS if Path(path).parent == folder]
        readme = (ROOT / folder / 'README.md').read_text()
        assert all(f'({model["Name"]}.py)' in readme for model in models)


PLACES = {
    'nl-5blocks': [
        'layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5'
    ],
    'dnl-c4-c5all': ['layer3.{last}', 'layer4.0', 'layer4.1', 'layer4.2'],
}


@pytest.mark.parametrize('path',
                         [p for p in CONFIGS if '/mask_rcnn/' in p])
def test_blocks_stand_where_the_name_of_the_config_says(path):
    backbone = MODELS.build(load(path).model.backbone)
    places = [
        name.rpartition('.')[0] for name, _ in backbone.named_modules()
        if name.endswith(('.non_local_block', '.context_block'))
    ]
    expected = next(
        (PLACES[name] for name in PLACES if f'-{name}_' in path), None)
    if expected is None:
        expected = ['layer3.{last}'] if '-c4_' in path else []
    last = len(backbone.layer3) - 1
    assert places == [place.format(last=last) for place in expected]
    assert last == (22 if '101' in path else 5)


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
        'nonlocal': ({}, .05),
    }
