"""The metafiles, their index and the tables of the READMEs are current."""

import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.fileio import load

from nl_plugins.analysis.baselines import find_baseline
from nl_plugins.analysis.complexity import Complexity, measure_complexity
from nl_plugins.analysis.describe import describe_blocks
from nl_plugins.engine.config import load_config
from nl_plugins.errors import MetafileError
from nl_plugins.zoo import model_zoo
from nl_plugins.zoo.model_zoo import stale_files, write_files

ROOT = Path(__file__).parents[2]
MODELS = {
    model['Config']: model
    for file in (ROOT / 'configs').rglob('metafile.yml')
    for model in load(file)['Models']
}


@pytest.fixture(autouse=True)
def without_search_in_metafiles(monkeypatch):
    """Loads configs faster.

    mmengine looks every external base up in all metafiles of its toolbox,
    without its suffix, with which they list it, and reloads pkg_resources.
    """

    def search(package_path, name):
        raise ValueError(name)

    monkeypatch.setattr('mmengine.config.utils._get_cfg_metainfo', search)
    monkeypatch.setattr('mmengine.config.config.is_installed', bool)


@pytest.mark.slow
def test_the_model_zoo_is_current():
    pytest.importorskip('mmaction')
    assert stale_files(ROOT) == []


def test_the_costs_in_a_metafile_are_those_of_its_model():
    pytest.importorskip('mmaction')
    path = 'configs/c2d/c2d_r50-in1k-pre-nl-c4_8xb32-8x8x1-100e_kinetics400-rgb.py'
    cost = measure_complexity(load_config(str(ROOT / path)))
    metadata = MODELS[path]['Metadata']
    assert cost == Complexity(
        metadata['Parameters'],
        metadata['FLOPs'],
        (metadata['Frame'], 224, 224),
    )
    assert metadata['Resolution'] == '224x224'


@pytest.mark.parametrize('folder', ['mask_rcnn', 'retinanet', 'fcn', 'tsm', 'slowonly'])
def test_published_results_are_of_the_model_without_its_blocks(folder, tmp_path):
    if folder in ('tsm', 'slowonly'):
        pytest.importorskip('mmaction')
    alone = tmp_path / 'alone.py'
    compared = 0
    for path in sorted((ROOT / 'configs' / folder).glob('*.py')):
        baseline, published = model_zoo._baselines(path)
        if published and any(describe_blocks(Config.fromfile(path).model)):
            model = Config.fromfile(path).model
            backbone = model.backbone
            if 'plugins' in backbone:
                del backbone['plugins']
            else:
                backbone.type = backbone.pop('base')
                del backbone['blocks']
            name = find_baseline(str(path))
            assert baseline == f'`{name}`'
            alone.write_text(f'_base_ = {name!r}')
            assert model == Config.fromfile(alone).model
            compared += 1
    assert compared


def test_a_baseline_with_another_backbone_is_one_of_ours():
    pytest.importorskip('mmaction')
    path = ROOT / (
        'configs/c2d/c2d_r101-in1k-pre-nl-c4_8xb32-8x8x1-100e_kinetics400-rgb.py'
    )
    name = 'c2d_r101-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb'
    assert model_zoo._baselines(path) == (f'[{name}]({name}.py)', '')


# A zoo of its own ---------------------------------------------------------

METAFILE = """\
Collections:
- Name: Toys
Models:
- Name: toy
  In Collection: Toys
  Config: configs/toys/toy.py
  Metadata:
    Training Data: COCO
  Recipe:
    GPUs: 1
    Batch Size: 2
    Learning Rate: 0.1
    Weight Decay: 0
    Schedule: 3 epochs
    Blocks:
    - NonLocal2d after conv
"""
CONFIG = """
default_scope = 'mmengine'
train_dataloader = dict(batch_size=2, dataset=dict(type='Toy'))
train_cfg = dict(max_epochs=3)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
model = dict(
    type='nl_plugins.WithBlocks',
    base='Toy',
    blocks=[dict(type='nl_plugins.NonLocal2d', after='conv')])
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A repository with one model, whose files are current."""
    monkeypatch.setattr(
        model_zoo,
        'measure_complexity',
        lambda cfg: Complexity(1234567, 89 * 10**9, (4, 5)),
    )
    toys = tmp_path / 'configs/toys'
    toys.mkdir(parents=True)
    (tmp_path / 'configs/demo').mkdir()
    (tmp_path / 'configs/demo/demo.py').write_text(CONFIG)
    (toys / 'toy.py').write_text(CONFIG)
    (toys / 'metafile.yml').write_text(METAFILE)
    (toys / 'README.md').write_text(
        '# Toys\n\n<!-- model zoo -->\nold\n<!-- /model zoo -->\n\nend\n'
    )
    written = write_files(tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in written}
    assert names == {
        'configs/toys/metafile.yml',
        'configs/toys/README.md',
        'model-index.yml',
    }
    return tmp_path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_written_files_are_current(zoo):
    assert stale_files(zoo) == []
    assert (zoo / 'configs/toys/README.md').read_text() == (
        '# Toys\n\n<!-- model zoo -->\n'
        '| config        | blocks                | input | parameters | FLOPs'
        '  | baseline | published for it |\n'
        '|---------------|-----------------------|-------|------------|-----'
        '---|----------|------------------|\n'
        '| [toy](toy.py) | NonLocal2d after conv | 4 x 5 | 1.2 M      | 89.0 '
        'G |          |                  |\n'
        '<!-- /model zoo -->\n\nend\n'
    )
    (model,) = load(zoo / 'configs/toys/metafile.yml')['Models']
    assert model['Metadata'] == {
        'Training Data': 'COCO',
        'Parameters': 1234567,
        'FLOPs': 89 * 10**9,
        'Resolution': '4x5',
    }
    assert (zoo / 'model-index.yml').read_text() == (
        'Import:\n- configs/toys/metafile.yml\n'
    )


def test_results_of_our_own_get_a_column(zoo):
    edit(
        zoo / 'configs/toys/metafile.yml',
        '  Metadata:\n',
        '  Results: {Task: T, Dataset: D, Metrics: {box AP: 38.5}}\n  Metadata:\n',
    )
    write_files(zoo)
    table = (zoo / 'configs/toys/README.md').read_text()
    assert 'trained here' in table and 'box AP 38.5' in table


@pytest.mark.parametrize(
    'file, old, new',
    [
        ('configs/toys/README.md', '1.2 M', '1.3 M'),
        ('configs/toys/metafile.yml', 'Collections:', '# by hand\nCollections:'),
        ('model-index.yml', 'toys', 'gone'),
    ],
)
def test_a_stale_file_is_named(zoo, load_tool, monkeypatch, file, old, new):
    edit(zoo / file, old, new)
    assert stale_files(zoo) == [file]
    tool = load_tool('model_zoo')
    monkeypatch.setattr(tool, 'ROOT', zoo)
    monkeypatch.setattr(sys, 'argv', ['model_zoo.py'])
    with pytest.raises(SystemExit, match=f'not current: {file}; run'):
        tool.main()
    monkeypatch.setattr(sys, 'argv', ['model_zoo.py', '--write'])
    tool.main()
    assert stale_files(zoo) == []


def test_a_changed_config_makes_its_table_stale(zoo):
    edit(zoo / 'configs/toys/toy.py', "after='conv'", "before='conv'")
    with pytest.raises(MetafileError, match='Recipe of toy: Blocks is .*before conv'):
        stale_files(zoo)
    edit(zoo / 'configs/toys/metafile.yml', 'after conv', 'before conv')
    assert stale_files(zoo) == ['configs/toys/README.md']


@pytest.mark.parametrize(
    'old, new, message',
    [
        ('toy.py', 'gone.py', 'list .*: configs/toys/gone.py, configs/toys/toy'),
        ('Name: toy\n', 'Name: yot\n', "toy.py must have its name, .* 'yot'"),
        ('In Collection: Toys', 'In Collection: X', "no collection 'X'"),
        ('    FLOPs: 89000000000\n', '', 'entry of toy lacks'),
    ],
)
def test_a_wrong_metafile_is_reported(zoo, old, new, message):
    edit(zoo / 'configs/toys/metafile.yml', old, new)
    with pytest.raises(MetafileError, match=message):
        stale_files(zoo)


def test_every_config_is_listed_once(zoo):
    toys = zoo / 'configs/toys'
    (toys / 'new.py').write_text(CONFIG)
    with pytest.raises(MetafileError, match='once, .*: configs/toys/new.py'):
        stale_files(zoo)
    (toys / 'new.py').unlink()
    (zoo / 'configs/more').mkdir()
    (zoo / 'configs/more/toy.py').write_text(CONFIG)
    with pytest.raises(MetafileError, match='no configs/more/metafile.yml'):
        stale_files(zoo)
    (zoo / 'configs/more/metafile.yml').write_text(
        METAFILE.replace('configs/toys', 'configs/more')
    )
    with pytest.raises(MetafileError, match='more than one metafile: toy'):
        stale_files(zoo)


def test_a_readme_without_a_place_for_the_table_is_reported(zoo):
    (zoo / 'configs/toys/README.md').write_text('# Toys\n')
    with pytest.raises(MetafileError, match='toys/README.md has no place'):
        stale_files(zoo)
