"""The package as a whole."""
import configparser
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
        if name.split('.')[0] in ('mmdet', 'mmseg', 'mmaction'):
            raise AssertionError(f'{name} was imported')

sys.meta_path.insert(0, Refuse())
import nl_plugins
block = nl_plugins.DisentangledNonLocal3d(4)
"""
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_public_names_are_registered():
    models = ['NLHead', 'DNLHead'] + [
        name for name in nl_plugins.__all__
        if name.endswith(('1d', '2d', '3d', 'WithBlocks'))
    ]
    assert len(models) == 9
    for name in models:
        assert nl_plugins.MODELS.get(f'nl_plugins.{name}') is getattr(
            nl_plugins, name)
    assert nl_plugins.HOOKS.get('nl_plugins.UpgradeNonLocalHook') is (
        nl_plugins.UpgradeNonLocalHook)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="'NonLocal4d'"):
        nl_plugins.NonLocal4d  # noqa: B018


def test_setup_cfg_names_the_version_and_the_extras():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    assert config['metadata']['version'] == 'attr: nl_plugins.__version__'
    extras = set(config['options.extras_require'])
    assert extras == {'det', 'seg', 'video', 'all', 'dev'}
