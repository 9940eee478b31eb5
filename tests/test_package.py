"""The package as a whole."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nl_plugins

ROOT = Path(__file__).parents[1]


def test_importing_it_needs_no_toolbox():
    code = """
import importlib.abc
import sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in (
            'mmdet', 'mmseg', 'mmaction', 'mmpose', 'mmpretrain'
        ):
            raise AssertionError(f'{name} was imported')

sys.meta_path.insert(0, Refuse())
import nl_plugins
block = nl_plugins.DisentangledNonLocal3d(4)
"""
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_public_names_are_registered():
    models = ['NLHead', 'DNLHead', 'OHEMCrossEntropyLoss'] + [
        name
        for name in nl_plugins.__all__
        if name.endswith(('1d', '2d', '3d', 'WithBlocks'))
    ]
    assert len(models) == 10
    for name in models:
        assert nl_plugins.MODELS.get(f'nl_plugins.{name}') is getattr(nl_plugins, name)
    assert nl_plugins.HOOKS.get('nl_plugins.UpgradeNonLocalHook') is (
        nl_plugins.UpgradeNonLocalHook
    )


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="'NonLocal4d'"):
        nl_plugins.NonLocal4d  # noqa: B018


def test_setup_cfg_names_the_version_and_the_extras():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    assert config['metadata']['version'] == 'attr: nl_plugins.__version__'
    extras = set(config['options.extras_require'])
    assert extras == {'det', 'seg', 'video', 'pose', 'cls', 'all', 'dev', 'docs'}


# What installs, tests or demonstrates a clone.
OF_A_CLONE = {
    'demo.py',
    'demo.sh',
    'install.py',
    'install.sh',
    'lib.sh',
    'model_zoo.py',
    'test.sh',
}


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> Path:
    """The folder of the package in a wheel."""
    folder = tmp_path_factory.mktemp('built')
    subprocess.run(
        [
            sys.executable,
            '-c',
            'import setuptools; setuptools.setup()',
            '--quiet',
            'build_py',
            '--build-lib',
            folder,
        ],
        cwd=ROOT,
        check=True,
    )
    assert [path.name for path in folder.iterdir()] == ['nl_plugins']
    return folder / 'nl_plugins'


def test_a_wheel_holds_the_code_the_configs_and_the_tools(built):
    expected = {ROOT / 'model-index.yml', *ROOT.glob('tools/*.[ps][yh]')}
    for kind in 'py', 'yml':
        expected.update(ROOT.glob(f'configs/**/*.{kind}'))
    expected = {
        Path('.mim', path.relative_to(ROOT))
        for path in expected
        if path.exists() and path.name not in OF_A_CLONE
    }
    code = ROOT / 'nl_plugins'
    expected |= {
        path.relative_to(code)
        for kind in ('py', 'html', 'typed')
        for path in code.glob(f'**/*.{kind}')
        if '.mim' not in path.parts
    }
    assert expected == {
        path.relative_to(built) for path in built.rglob('*') if path.is_file()
    }


@pytest.mark.slow
def test_a_tool_of_a_wheel_finds_the_configs_of_the_wheel(built, tmp_path):
    # in the built package alone, with bases in this one and in a toolbox;
    # the error comes when all of them are read
    (built / '.mim/configs/new.py').write_text(
        "_base_ = 'nl_plugins::dnlnet/ablations/"
        "dnl-unary-separate_r50-d8_4xb2-40k_cityscapes-512x1024.py'\n"
        "default_scope = 'no_toolbox'"
    )
    result = subprocess.run(
        [sys.executable, built / '.mim/tools/train.py', 'nl_plugins::new.py'],
        cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(built.parent)},
        capture_output=True,
        text=True,
    )
    assert result.stderr.splitlines()[-1].startswith(
        'error: the config needs no_toolbox, which cannot be imported'
    )
