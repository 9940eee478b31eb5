"""Defects of upstream releases do not reach the user."""

import atexit
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import hub
import mmengine.runner.checkpoint
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dist import init_dist
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader, Runner
from mmengine.visualization import MLflowVisBackend, Visualizer
from torch import nn
from torch.utils.data import DataLoader

from nl_plugins.compat import mmengine as compat
from nl_plugins.compat.mmaction import restore_numpy_names
from nl_plugins.compat.mmcv import replace_mmsyncbn
from nl_plugins.engine.config import load_config
from nl_plugins.errors import CheckpointNotFoundError, CheckpointReadError


def run_python(code: str, path: Path | None = None) -> None:
    """Run code in a new process."""
    env = os.environ | {'PYTHONPATH': os.pathsep.join(map(str, sys.path))}
    if path is not None:
        env['PYTHONPATH'] = f'{path}{os.pathsep}{env["PYTHONPATH"]}'
    subprocess.run([sys.executable, '-c', code], env=env, check=True)


# mmaction2 ----------------------------------------------------------------


def test_import_needs_no_toolbox():
    run_python(
        'import sys, nl_plugins\n'
        'assert not {"mmdet", "mmseg", "mmaction"} & set(sys.modules)'
    )


def test_mmaction_models_import_although_drn_is_missing():
    pytest.importorskip('mmaction')
    from mmaction.models import DRN, ResNet3d  # noqa: F401, I001
    from mmaction.registry import MODELS

    with pytest.raises(
        ModuleNotFoundError,
        match=r"lacks 'mmaction\.models\.localizers\.drn'.*repository",
    ):
        MODELS.build({'type': 'mmaction.DRN'})


def test_mmaction_finds_the_names_that_numpy_2_removed(monkeypatch):
    pytest.importorskip('mmaction')
    from mmaction.datasets.transforms import PoseCompact
    from mmaction.evaluation import average_recall_at_avg_proposals

    for name in 'Inf', 'NAN', 'trapz', 'in1d':
        monkeypatch.delattr(np, name, raising=False)
    if not hasattr(np, 'trapezoid'):  # NumPy 1
        monkeypatch.setattr(np, 'trapezoid', _trapezoid, raising=False)
    restore_numpy_names()
    keypoints = np.array([[[[10.0, 20.0], [50.0, 80.0]]]])
    results = dict(img_shape=(100, 100), keypoint=keypoints)
    results = PoseCompact(padding=0.0, threshold=1)(results)
    assert results['img_shape'] == (60, 40)
    proposals = dict(video=np.array([[0.0, 1.0, 1.0]]))
    *_, auc = average_recall_at_avg_proposals(
        dict(video=np.array([[0.0, 1.0]])), proposals, 1, max_avg_proposals=1
    )
    # found with the last of 100 steps, by the trapezoid rule
    assert auc == pytest.approx(0.5)
    assert np.isnan(np.NAN) and np.in1d([1], [1]).all()


def _trapezoid(y, x):
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


@pytest.mark.slow
def test_real_drn_goes_before_the_stand_in(tmp_path):
    package = tmp_path / 'mmaction' / 'models' / 'localizers' / 'drn'
    package.mkdir(parents=True)
    for folder in (package, *package.parents[:3]):
        (folder / '__init__.py').touch()
    (package / 'drn.py').write_text('DRN = "real"')
    run_python(
        'import nl_plugins\n'
        'from mmaction.models.localizers.drn.drn import DRN\n'
        'assert DRN == "real"',
        tmp_path,
    )


# Checkpoints --------------------------------------------------------------


class Toy(BaseModel):
    """Predicts a number from a number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.layer(inputs).square().mean()}


class Numbers(torch.utils.data.Dataset):
    """Four numbers, with the kinds of meta information that datasets have."""

    metainfo = {
        'classes': ('a', 'b'),
        'palette': np.zeros((2, 3), dtype=np.uint8),
        'label_map': ConfigDict({0: 1}),
        'scale': np.float32(2),
    }

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'inputs': torch.ones(1)}


def toy_runner(work_dir: Path, max_epochs: int, **kwargs) -> Runner:
    """A runner with all that puts odd types into a checkpoint."""
    model = Toy()
    return Runner(
        model,
        str(work_dir),
        train_dataloader=DataLoader(Numbers(), batch_size=2),
        train_cfg={'by_epoch': True, 'max_epochs': max_epochs},
        optim_wrapper=OptimWrapper(
            torch.optim.AdamW(model.parameters(), lr=1e-3, amsgrad=True)
        ),
        param_scheduler=[
            {'type': 'OneCycleLR', 'eta_max': 0.1, 'total_steps': 4, 'by_epoch': False},
            {
                'type': 'OneCycleLR',
                'eta_max': 0.1,
                'total_steps': 4,
                'by_epoch': False,
                'anneal_strategy': 'linear',
            },
            {'type': 'MultiStepLR', 'milestones': [1]},
        ],
        custom_hooks=[EMAHook()],
        default_scope='mmengine',
        experiment_name=f'{max_epochs} epochs',
        **kwargs,
    )


def test_runner_resumes_from_its_own_checkpoint(tmp_path, monkeypatch):
    toy_runner(tmp_path, max_epochs=1).train()
    # A new process has not built a history buffer yet.
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', {})
    runner = toy_runner(tmp_path, max_epochs=2, resume=True)
    runner.train()
    assert runner.iter == 4
    losses = runner.message_hub.get_scalar('train/loss')
    assert len(losses.data[0]) == 4
    assert losses.statistics('mean') > 0


def values() -> list:
    return [
        np.arange(3.0),
        np.array(['a', 'bc']),
        np.float64(1.5),
        np.int64(3),
        np.bool_(True),
    ]


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_arrays_of_either_numpy_load(tmp_path, core):
    file = tmp_path / 'old.pth'
    torch.save(values(), file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    for name in b'numpy._core', b'numpy.core':
        content = content.replace(name, core.encode())
    assert core.encode() + b'.multiarray\n' in content
    file.write_bytes(content)
    for loaded, value in zip(torch.load(file), values(), strict=True):
        np.testing.assert_array_equal(loaded, value)


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'call, name',
    [
        (Calls(os.mkdir, 'harm'), 'posix.mkdir'),
        (Calls(eval, '__import__("os").mkdir("harm")'), 'eval'),
        (Calls(getattr, HistoryBuffer, '__init__'), 'builtins.getattr'),
        (Calls(getattr, HistoryBuffer.mean, '__globals__'), 'builtins.getattr'),
        (nn.Linear(1, 1), 'torch.nn.modules.linear.Linear'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_other_types_are_refused(tmp_path, monkeypatch, call, name):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {}, 'more': call}, 'checkpoint.pth')
    with pytest.raises(CheckpointReadError) as caught:
        CheckpointLoader.load_checkpoint('checkpoint.pth')
    message = str(caught.value)
    assert 'checkpoint.pth is refused' in message
    assert f"'{name}'" in message
    assert 'weights_only=False' in message
    assert not Path('harm').exists()


def test_url_is_loaded_as_safely_as_a_file(tmp_path):
    file = tmp_path / 'checkpoint.pth'
    torch.save(Calls(os.mkdir, str(tmp_path / 'harm')), file)
    with pytest.raises(pickle.UnpicklingError, match='posix.mkdir'):
        mmengine.runner.checkpoint.load_url(file.as_uri(), tmp_path / 'hub')
    assert not (tmp_path / 'harm').exists()


@pytest.mark.parametrize('size', [0, 11, 500])
def test_damaged_file(tmp_path, size):
    file = tmp_path / 'checkpoint.pth'
    torch.save({'state_dict': nn.Linear(9, 9).state_dict()}, file)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(
        CheckpointReadError, match='checkpoint.pth cannot be read .* is damaged'
    ):
        CheckpointLoader.load_checkpoint(str(file))


# Names of pretrained weights -----------------------------------------------


@pytest.fixture
def torchvision(tmp_path, monkeypatch):
    """Puts a torchvision first in line, as good or broken as its source."""

    def install(source: str) -> None:
        (tmp_path / 'torchvision.py').write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, 'torchvision', raising=False)

    yield install
    sys.modules.pop('torchvision', None)


@pytest.mark.parametrize(
    'source',
    [
        'raise ImportError',
        'raise RuntimeError("operator torchvision::nms does not exist")',
    ],
)
def test_torchvision_names_need_no_torchvision(torchvision, source, torch_home):
    torchvision(source)
    expected = hub.write(torch_home, 'torchvision://resnet18')
    found = CheckpointLoader.load_checkpoint('torchvision://resnet18')
    assert found.keys() == expected.keys()
    assert torch.equal(found['conv1.weight'], expected['conv1.weight'])


def test_an_installed_torchvision_names_its_weights(torchvision, torch_home):
    torchvision("""
__version__ = '0.20.0'
class Weight:
    name, url = 'NEW', 'https://example.org/new-weights.pth'
class Tiny_Weights:
    __name__ = 'Tiny_Weights'
    DEFAULT = Weight
    def __iter__(self):
        yield Weight
class models:
    list_models = staticmethod(lambda models: ['tiny'])
    get_model_weights = staticmethod(lambda name: Tiny_Weights())
""")
    file = torch_home / 'hub/checkpoints/new-weights.pth'
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(a=torch.ones(1)), file)
    assert CheckpointLoader.load_checkpoint('torchvision://tiny.new')['a'] == 1


@pytest.mark.parametrize(
    'name, message',
    [
        ('torchvision://resnet5O', 'did you mean resnet50'),
        ('torchvision://x', 'the names are alexnet, '),
        ('open-mmlab://resnet50_v1x', 'did you mean .*resnet50_v1c'),
    ],
)
def test_an_unknown_name_is_one_clear_error(name, message):
    with pytest.raises(
        CheckpointNotFoundError, match=f"no weights '{name}'; {message}"
    ):
        CheckpointLoader.load_checkpoint(name)


def test_without_network_the_folder_is_named(torch_home, monkeypatch):

    def unreachable(*args, **kwargs):
        raise URLError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', unreachable)
    with pytest.raises(
        CheckpointNotFoundError,
        match='https://.*/resnet34-.* cannot be downloaded .no network.*'
        f'put the file into {torch_home}/hub/checkpoints',
    ):
        CheckpointLoader.load_checkpoint('torchvision://resnet34')


# Pictures in MLflow --------------------------------------------------------


def test_pictures_reach_mlflow_with_a_suffix(tmp_path, monkeypatch):
    logged = []
    client = SimpleNamespace(log_image=lambda image, file: logged.append(file))
    monkeypatch.setattr(
        MLflowVisBackend, '_init_env', lambda self: setattr(self, '_mlflow', client)
    )
    backend = MLflowVisBackend(str(tmp_path))
    visualizer = Visualizer(vis_backends=[backend])
    visualizer.add_image('attention_0', np.zeros((2, 2, 3), np.uint8), step=4)
    assert logged == ['attention_0_4.png']


# The CPU ------------------------------------------------------------------


@pytest.fixture
def process_group(monkeypatch) -> Iterator[None]:
    """A process group of one process without accelerator."""
    monkeypatch.setattr(compat, 'get_device', lambda: 'cpu')
    for key, value in {
        'RANK': '0',
        'LOCAL_RANK': '0',
        'WORLD_SIZE': '1',
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': '0',
    }.items():
        monkeypatch.setenv(key, value)
    init_dist('pytorch')
    yield
    torch.distributed.destroy_process_group()


class Synced(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 1), nn.SyncBatchNorm(2))

    def forward(self, inputs, mode='tensor'):
        return self.layers(inputs)


def test_the_group_is_left_when_the_process_ends(monkeypatch):
    destroyed = []
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: not destroyed)
    monkeypatch.setattr(
        torch.distributed, 'destroy_process_group', lambda: destroyed.append(True)
    )
    registered = []
    monkeypatch.setattr(atexit, 'register', registered.append)
    compat._init_dist_on_cpu(lambda backend: None)('gloo')
    (leave,) = registered
    leave()
    leave()  # somebody else has left it
    assert destroyed == [True]


def test_launcher_falls_back_to_gloo(process_group):
    assert torch.distributed.get_backend() == 'gloo'


def test_distributed_cpu_model_gets_plain_batch_norm(process_group, caplog):
    model = Synced()
    keys = list(model.state_dict())
    with caplog.at_level(logging.WARNING):
        wrapped = MMDistributedDataParallel(model, device_ids=[0])
    inputs = torch.rand(2, 1, 3, 3)
    expected = nn.BatchNorm2d(2)(model.layers[0](inputs))
    torch.testing.assert_close(wrapped(inputs), expected)
    wrapped(inputs).sum().backward()
    assert list(wrapped.module.state_dict()) == keys


def test_model_on_an_accelerator_stays_synchronized():
    seen = []
    wrap = compat._wrap_cpu_model(lambda *args, **kwargs: seen.append((args, kwargs)))
    # 'meta' stands for any device but the CPU.
    model = Synced().to('meta')
    wrap(None, model, device_ids=[0])
    assert seen == [((None, model), {'device_ids': [0]})]
    assert isinstance(model.layers[1], nn.SyncBatchNorm)


def test_runner_without_launcher_reverts_sync_batch_norm(tmp_path):
    model = Synced()
    keys = list(model.state_dict())
    runner = Runner(model, str(tmp_path), default_scope='mmengine')
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in runner.model.modules())
    assert list(runner.model.state_dict()) == keys
    runner.model(torch.rand(2, 1, 3, 3)).sum().backward()


def test_mmsyncbn_is_built_without_a_process_group():
    cfg = load_config(
        'mmdet::strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_'
        '4conv1fc_syncbn-all_lsj-100e_coco.py'
    )
    replace_mmsyncbn(cfg.model)
    neck = MODELS.build({'_scope_': 'mmdet', **cfg.model.neck}).fpn_convs[0]
    assert isinstance(neck.bn, nn.SyncBatchNorm)
    neck(torch.rand(2, 256, 4, 4)).sum().backward()


def test_metafiles_are_parsed_once():
    from mmengine.config import utils

    config = 'nl_plugins::mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py'
    load_config(config)
    before = utils.load.cache_info()
    load_config(config)
    after = utils.load.cache_info()
    assert after.misses == before.misses and after.hits > before.hits
