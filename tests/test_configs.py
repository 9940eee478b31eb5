"""Every config of the repository builds, and trains one step."""
from pathlib import Path

import pytest
import torch
import yaml
from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py'))


def without_pretrained_weights(cfg):
    """Drop what would be downloaded."""
    for key, value in list(cfg.items()):
        if isinstance(value, dict):
            without_pretrained_weights(value)
            if key == 'init_cfg' and value.get('type') == 'Pretrained':
                cfg[key] = None


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds_and_trains_one_step(path):
    from mmdet.testing import demo_mm_inputs
    cfg = Config.fromfile(ROOT / path)
    assert cfg.default_scope == 'mmdet'
    init_default_scope('mmdet')
    without_pretrained_weights(cfg.model)
    cfg.model.train_cfg.rcnn.sampler.num = 16  # seconds, not minutes
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    blocks = [
        name for name, module in model.named_modules()
        if isinstance(module, _NonLocalNd)
        or type(module).__name__ == 'ContextBlock'
    ]
    named_by_file = any(part in path for part in ('-nl-', '-dnl-', '-gcb-'))
    assert bool(blocks) == named_by_file
    assert not blocks or 'nl_plugins' in cfg.custom_imports.imports
    model.train()
    batch = demo_mm_inputs(
        2, [[3, 64, 64]] * 2, num_classes=2, with_mask=True)
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode='loss')
    loss, logs = model.parse_losses(losses)
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
    cfg = Config.fromfile(ROOT / path)
    init_default_scope('mmdet')
    without_pretrained_weights(cfg.model)
    backbone = MODELS.build(cfg.model.backbone)
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
