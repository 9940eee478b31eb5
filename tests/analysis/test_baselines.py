"""Upstream's configs behind a config, and what was published for them."""

import re
from dataclasses import astuple
from pathlib import Path

import pytest
from mmengine.fileio import load

from nl_plugins.analysis.baselines import (
    fair_baseline,
    fair_baselines,
    find_baseline,
    inherited,
    published_results,
    upstream_name,
)
from nl_plugins.analysis.comparison.runs import settings_of
from nl_plugins.engine.config import (
    TOOLBOXES,
    config_folder,
    find_config,
    load_config,
)
from nl_plugins.errors import ConfigNotFoundError

ROOT = Path(__file__).parents[2]

MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
R101 = 'mmdet::mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py'
RUNTIME = 'mmdet::_base_/default_runtime.py'
NO_MODEL = 'mmdet::common/ms_3x_coco.py'


@pytest.mark.parametrize(
    'bases, baseline',
    [
        (f'{MASK_RCNN!r}', MASK_RCNN),
        (f'[{RUNTIME!r}, {MASK_RCNN!r}]', MASK_RCNN),
        (f'[{NO_MODEL!r}, {MASK_RCNN!r}]', MASK_RCNN),
        (f'[{RUNTIME!r}]', None),
        ("['mmdet::_base_/models/mask-rcnn_r50_fpn.py']", None),
        ('[]', None),
        ("('mmdet::'\n    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')", MASK_RCNN),
        (repr(str(find_config(MASK_RCNN))), MASK_RCNN),
    ],
)
def test_baseline_of_a_chain(tmp_path, bases, baseline):
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own/base.py').write_text(f'_base_ = {bases}\nx = 1\n')
    (tmp_path / 'middle.py').write_text("_base_ = ['./own/base.py']\n")
    (tmp_path / 'config.py').write_text("_base_ = './middle.py'\n")
    assert find_baseline(str(tmp_path / 'config.py')) == baseline


def test_the_nearest_of_two_is_the_baseline(tmp_path):
    (tmp_path / 'base.py').write_text(f'_base_ = {MASK_RCNN!r}\n')
    (tmp_path / 'config.py').write_text(f"_base_ = [{R101!r}, './base.py']\n")
    assert find_baseline(str(tmp_path / 'config.py')) == R101
    assert [
        upstream_name(path) or path.name
        for path in inherited(str(tmp_path / 'config.py'))
    ] == [R101, 'base.py', MASK_RCNN]


@pytest.mark.parametrize('config', [MASK_RCNN, R101, str(find_config(R101))])
def test_upstreams_own_configs_have_no_baseline(config):
    assert list(inherited(config)) == []
    assert find_baseline(config) is None


def test_pure_python_configs_have_no_baseline(tmp_path):
    (tmp_path / 'base.py').write_text('model = dict()\n')
    (tmp_path / 'config.py').write_text(
        'from mmengine.config import read_base\n'
        'with read_base():\n    from .base import *\n'
    )
    assert find_baseline(str(tmp_path / 'config.py')) is None


@pytest.mark.parametrize('base', ['./gone.py', 'mmdet::gone.py'])
def test_a_missing_base_is_named(tmp_path, base):
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n')
    with pytest.raises(ConfigNotFoundError, match='gone.py'):
        find_baseline(str(tmp_path / 'config.py'))


def test_published_results_of_a_detector():
    boxes, masks = published_results(MASK_RCNN)
    assert (boxes.task, masks.task) == ('Object Detection', 'Instance Segmentation')
    assert list(boxes.metrics) == ['box AP']
    assert list(masks.metrics) == ['mask AP']
    assert 30 < masks.metrics['mask AP'] < boxes.metrics['box AP'] < 45
    assert boxes.dataset == 'COCO'
    assert boxes.model == 'mask-rcnn_r50_fpn_1x_coco'
    assert boxes.weights.endswith('mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth')


#: The forms in which metafiles of the toolboxes give results.
METAFILE = """
Models:
- Name: one
  Config: configs/one.py
  Weights: [https://a.pth, https://b.pth]
  Results: {Task: T, Dataset: D, Metrics: {mIoU: 1.5, mIoU(ms+flip): 2}}
- Name: one again
  Config: other/one
  Results:
  - {Task: T, Dataset: D, Metrics: }
  - {Task: T, Dataset: D}
  - {Task: U, Dataset: D, Metrics: {AP: 3}}
- {Name: two, Config: two.py, Results: }
- {Name: three, Config: three.py}
"""


@pytest.mark.parametrize('folder', ['', 'nested/'])
@pytest.mark.parametrize('content', [METAFILE, METAFILE.partition('Models:\n')[2]])
def test_published_results_of_all_forms(tmp_path, folder, content):
    (tmp_path / 'nested').mkdir()
    (tmp_path / 'metafile.yaml').write_text(content)
    found = {}
    for name in 'one', 'two', 'three', 'four':
        path = tmp_path / f'{folder}{name}.py'
        path.touch()
        found[name] = list(map(astuple, published_results(str(path))))
    assert found == dict(
        one=[
            ('T', 'D', {'mIoU': 1.5, 'mIoU(ms+flip)': 2}, 'one', 'https://a.pth'),
            ('U', 'D', {'AP': 3}, 'one again', ''),
        ],
        two=[],
        three=[],
        four=[],
    )


@pytest.mark.parametrize('package', TOOLBOXES)
def test_every_published_result_of_a_toolbox_is_found(package):
    pytest.importorskip(package)
    root = config_folder(package)
    listed = 0
    # MMPose's are named after the backbone.
    for file in root.rglob('*.yml' if package == 'mmpose' else 'metafile.y*ml'):
        content = load(file)
        for model in content if isinstance(content, list) else (content['Models']):
            path = root / model['Config'].partition('/')[2]
            if not path.is_file():  # some are misspelt
                continue
            listed += 1
            results = [
                result
                for result in published_results(upstream_name(path))
                if result.model == model['Name']
            ]
            # some are announced as None
            given = bool(
                re.search("'Metrics': {[^}]*: [^N{}]", str(model.get('Results')))
            )
            assert bool(results) == given, model
            for result in results:
                assert all(
                    isinstance(value, (int, float)) for value in result.metrics.values()
                )
                assert isinstance(result.weights, str)
    assert listed > 150
    assert not published_results(
        f'{package}::'
        + next(
            path.relative_to(root).as_posix()
            for path in Path(root, '_base_').rglob('*.py')
        )
    )


def test_the_fair_baseline_differs_in_the_blocks_alone():
    pytest.importorskip('mmaction')
    c2d = 'configs/c2d/c2d_r101-in1k-pre{}_8xb32-8x8x1-100e_kinetics400-rgb.py'
    with_block, plain = (str(ROOT / c2d.format(name)) for name in ('-nl-c4', ''))
    assert fair_baseline(with_block) == plain
    # upstream has the depth of 50 alone
    assert fair_baseline(plain) == find_baseline(plain) != plain
    path = str(ROOT / 'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py')
    assert fair_baseline(path) == find_baseline(path)


def test_a_fragment_of_ones_own_is_no_baseline(tmp_path):
    (tmp_path / '_base_').mkdir()
    (tmp_path / '_base_' / 'model.py').write_text("model = dict(type='FCN')\n")
    config = tmp_path / 'config.py'
    config.write_text(
        "_base_ = ['_base_/model.py', 'mmseg::_base_/default_runtime.py']\n"
    )
    assert fair_baseline(str(config)) is None


HEADS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ('nonlocal_net', 'dnlnet')
    for path in (ROOT / 'configs' / folder).rglob('*_r50-d8_*[126]*0k_*.py')
    if '80k' not in path.name
)


@pytest.mark.parametrize('config', HEADS[::3])
def test_a_head_is_compared_with_fcn_and_with_upstreams_own(config):
    plain, *upstream = fair_baselines(str(ROOT / config))
    assert plain == 'mmseg::fcn/fcn_' + Path(config).name.partition('_')[2]
    # upstream has no head with a block for PASCAL Context
    assert len(upstream) == ('pascal-context' not in config)
    assert all(name.startswith(f'mmseg::{config.split("/")[1]}/') for name in upstream)
    one, other = (
        {
            key: value
            for key, value in settings_of(load_config(name)).items()
            if re.match(r'crop_size|train|param_sch|.*\.optimizer|model.backbone', key)
            and not key.endswith('_scope_')  # through which toolbox it was loaded
        }
        for name in (str(ROOT / config), plain)
    )
    assert one == other and len(one) > 30


def test_the_official_recipes_of_dnl_have_their_own_fcn():
    paths = list((ROOT / 'configs/dnlnet').glob('dnl-official*.py'))
    assert len(paths) == 6
    for path in paths:
        (plain,) = fair_baselines(str(path))
        assert Path(plain).name == 'fcn-ohem_' + path.name.partition('_')[2]


def test_models_without_a_block_of_their_own_have_one_baseline(tmp_path):
    path = str(ROOT / 'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py')
    assert fair_baselines(path) == [MASK_RCNN]
    own = tmp_path / 'nonlocal_own.py'  # of which there is no FCN
    base = 'mmseg::nonlocal_net/nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024.py'
    own.write_text(f'_base_ = {base!r}\n')
    (upstream,) = fair_baselines(str(own))
    assert upstream.startswith('mmseg::nonlocal_net/')
