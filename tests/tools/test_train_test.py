"""The command-line tools, end to end on a dataset of a few pictures."""

import json
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import commands
import pytest
import tiny_coco
import torch

from nl_plugins import engine
from nl_plugins.engine import config as loading

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group('train_test')]

CONFIG = """
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=[dict(type='nl_plugins.NonLocal2d', before='layer3.-1')]))
"""
BLOCK = 'backbone.layer3.1.non_local_block.'


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A folder with the dataset and a config of Mask R-CNN with a block."""
    folder = tmp_path_factory.mktemp('tools')
    tiny_coco.write(folder / 'coco')
    tiny_coco.write_pretrained(folder)
    (folder / 'nl.py').write_text(CONFIG)
    return folder


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('', 0))
        return s.getsockname()[1]


def options(folder: Path) -> dict:
    return {
        **tiny_coco.SMALL_MASK_RCNN,
        **tiny_coco.data_options(folder / 'coco'),
        'train_cfg.max_epochs': 3,
        'train_cfg.val_interval': 3,
        'default_hooks.logger.interval': 1,
        'randomness.seed': 0,
    }


def training(folder: Path, work_dir: Path, *more: str) -> list:
    """The command of a training."""
    values = tiny_coco.as_arguments(options(folder))
    return [
        'train.py',
        'nl.py',
        '--work-dir',
        work_dir,
        *more,
        '--cfg-options',
        *values,
    ]


def scalars(work_dir: Path) -> dict[int, dict]:
    """What the runs in a work directory logged while training, by step."""
    return {
        line['step']: line
        for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in map(json.loads, file.read_text().splitlines())
        if 'lr' in line
    }


@pytest.fixture(scope='module')
def trained(folder) -> Path:
    """Work directory of a training run without interruption."""
    output = commands.run(folder, *training(folder, folder / 'trained'), home=folder)
    assert output.splitlines()[-1].startswith('written: trained/epoch_3.pth, trained/2')
    return folder / 'trained'


def test_train_moves_the_block(trained):
    state = torch.load(trained / 'epoch_3.pth')['state_dict']
    block = {k: v for k, v in state.items() if k.startswith(BLOCK)}
    # Its last layer was zero before the first step.
    assert block[BLOCK + 'conv_out.conv.weight'].abs().max() > 0


def test_resume_after_kill_continues_the_same_run(folder, trained):
    work_dir = folder / 'killed'
    process = commands.start(folder, *training(folder, work_dir), home=folder)
    while not (work_dir / 'last_checkpoint').exists():
        assert process.is_alive(), (folder / 'output.txt').read_text()
        time.sleep(0.05)
    process.kill()
    process.join()
    assert not (work_dir / 'epoch_3.pth').exists()
    killed = scalars(work_dir)

    resume = training(folder, work_dir, '--resume')
    output = commands.run(folder, *resume, home=folder)
    assert 'resumed epoch: ' in output

    resumed, straight = scalars(work_dir), scalars(trained)
    assert len(killed) < len(resumed)
    assert resumed.keys() == straight.keys() == set(range(1, 7))
    for step, line in straight.items():
        assert resumed[step]['lr'] == line['lr']
        assert resumed[step]['loss'] == pytest.approx(line['loss'], rel=1e-5)
    checkpoints = [torch.load(d / 'epoch_3.pth') for d in (work_dir, trained)]
    assert_equal(*(c['state_dict'] for c in checkpoints))
    assert_equal(*(c['optimizer'] for c in checkpoints))
    assert_equal(*(c['param_schedulers'] for c in checkpoints))


def assert_equal(a: object, b: object) -> None:
    """Compare nested containers of tensors and numbers."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    else:
        assert a == b


def test_test_keeps_and_draws_predictions(folder, trained):
    output = commands.run(
        folder,
        'test.py',
        'nl.py',
        trained / 'epoch_3.pth',
        '--work-dir',
        folder / 'tested',
        '--out',
        folder / 'predictions.pkl',
        '--show-dir',
        'pictures',
        '--cfg-options',
        *tiny_coco.as_arguments(options(folder)),
        home=folder,
    )
    assert output.splitlines()[-1].endswith('.log, predictions.pkl, pictures')
    predictions = pickle.loads((folder / 'predictions.pkl').read_bytes())
    assert len(predictions) == 2
    for prediction in predictions:
        instances = prediction['pred_instances']
        assert len(instances['bboxes']) == len(instances['masks']) == 5
    names = {path.name for path in (folder / 'pictures').iterdir()}
    assert names == {f'{i:012d}.png' for i in (1, 2)}
    (metrics,) = (folder / 'tested').glob('*/*.json')
    assert 'coco/segm_mAP' in json.loads(metrics.read_text())


def test_test_time_augmentation(folder, trained, monkeypatch):
    monkeypatch.chdir(folder)
    checkpoint = torch.load(trained / 'epoch_3.pth')
    checkpoint['state_dict'] = {
        key: value
        for key, value in checkpoint['state_dict'].items()
        if 'mask_head' not in key
    }
    torch.save(checkpoint, 'boxes.pth')
    cfg = loading.load_config(
        'nl.py',
        {
            **options(folder),
            'model.roi_head.mask_head': None,
            'test_evaluator.metric': 'bbox',
        },
        'augmented',
    )
    assert 'coco/bbox_mAP' in engine.test(cfg, 'boxes.pth', tta=True)
    assert cfg.model.type == 'DetTTAModel'
    assert cfg.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'


def test_two_processes_train_on_the_cpu(folder):
    values = options(folder) | {
        'train_cfg.max_epochs': 1,
        'model.backbone.norm_cfg.type': 'SyncBN',
    }
    process = subprocess.run(
        ['bash', commands.TOOLS / 'dist_train.sh', 'nl.py', '2']
        + ['--work-dir', folder / 'distributed']
        + ['--cfg-options', *tiny_coco.as_arguments(values)],
        cwd=folder,
        env=os.environ
        | {
            'OMP_NUM_THREADS': '1',
            'TORCH_HOME': str(folder),
            # The script runs the Python of the active environment.
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'PORT': str(free_port()),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = process.stdout
    assert process.returncode == 0, output
    assert 'through gloo instead of nccl' in output
    assert 'layers of the model become BatchNorm' in output
    checkpoint = torch.load(folder / 'distributed' / 'epoch_1.pth')
    # 4 pictures, 2 processes, 2 pictures each: one step.
    assert checkpoint['meta']['iter'] == 1
    block = checkpoint['state_dict'][BLOCK + 'conv_out.conv.weight']
    assert block.abs().max() > 0


def test_tool_says_what_is_wrong_in_one_line(folder):
    options = ['--data-root', 'coco', '--cfg-options', 'load_from=nil.pth']
    process = subprocess.run(
        [sys.executable, commands.TOOLS / 'train.py', 'nl.py', *options],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert 'Traceback' not in process.stderr
    assert "error: load_from: there is no checkpoint 'nil.pth'" in process.stderr
    assert 'pkg_resources' not in process.stderr and not process.stdout


@pytest.mark.parametrize('script', ['dist_train', 'dist_test', 'slurm_train'])
def test_help_of_the_launchers(script):
    command = ['bash', str(commands.TOOLS / f'{script}.sh')]
    shown = subprocess.run([*command, '--help'], capture_output=True, text=True)
    assert shown.returncode == 0 and not shown.stderr
    assert f'bash tools/{script}.sh ' in shown.stdout
    # the same on stderr for a call without arguments
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr == shown.stdout
