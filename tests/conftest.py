"""Fixtures of several files."""

import functools
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin

from nl_plugins import engine
from nl_plugins.engine import config as loading

#: What in the name or code of a test says that it needs a toolbox.
TOOLBOX = dict(
    mmdet='mmdet|mask.rcnn|detector',
    mmseg='mmseg|cityscapes|ade20k|pascal|segmentor',
    mmaction='mmaction|kinetics|c2d|recognizer',
    mmpose='mmpose|td.hm',
    mmpretrain='mmpretrain|/imagenet/',
)


def pytest_collection_modifyitems(items):
    """Mark the toolboxes, and begin with what takes long.

    So no worker waits for a long test at the end.
    """
    source = functools.cache(inspect.getsource)
    for item in items:
        text = item.nodeid + source(item.function)
        for name, words in TOOLBOX.items():
            if re.search(words, text, re.I):
                item.add_marker(name)
    items.sort(key=lambda item: item.get_closest_marker('slow') is None)


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('needs a GPU')


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same random numbers, and leaves nothing.

    mmengine keeps scopes, loggers, message hubs and visualizers by name.
    """
    torch.manual_seed(0)
    yield
    classes = [ManagerMixin]
    for cls in classes:
        classes += cls.__subclasses__()
        cls._instance_dict.clear()


@pytest.fixture(scope='session')
def hub_folder(tmp_path_factory) -> Path:
    """A folder of pretrained files, which tests fill with :mod:`hub`."""
    return tmp_path_factory.mktemp('torch_home')


@pytest.fixture
def torch_home(hub_folder, monkeypatch) -> Path:
    """The folder in which PyTorch looks for pretrained files."""
    monkeypatch.setenv('TORCH_HOME', str(hub_folder))
    return hub_folder


@pytest.fixture
def load_tool():
    """Imports one of the tools, which are no package."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parents[1] / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Loads the config of the toy, in an empty working directory."""
    from toy_run import TOY  # needs MMDetection

    monkeypatch.chdir(tmp_path)
    # mmengine keeps loggers and message hubs by the name of the experiment.
    Path(f'{tmp_path.name}.py').write_text(TOY)

    def load(**kwargs) -> Config:
        options = {key.replace('__', '.'): v for key, v in kwargs.items()}
        return loading.load_config(f'{tmp_path.name}.py', options, 'work')

    return load


@pytest.fixture
def no_runner(monkeypatch):
    """Makes it an error to build a runner."""
    monkeypatch.setattr(Runner, 'from_cfg', None)


@pytest.fixture
def checkpoint(toy) -> str:
    """A checkpoint of the toy, after one epoch."""
    engine.train(toy(train_cfg__max_epochs=1))
    return 'work/epoch_1.pth'
