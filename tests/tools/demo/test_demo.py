"""tools/demo.py, from generated data to the page of the comparison."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import commands
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]

ONE_EPOCH = """
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1))
"""

TWO_ITERATIONS = """
train_cfg = dict(max_iters=2, val_interval=2)
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2))
"""


class Command:
    """A command of the demo, in place of a ``subprocess.Popen``."""

    def __init__(self, command, **_):
        _, tool, *arguments = command
        self.process = commands.start(
            Path.cwd(), Path(tool).name, *arguments, home=Path.cwd()
        )

    def __enter__(self):
        self.process.join()
        self.stdout = Path('output.txt').read_text().splitlines(keepends=True)
        self.returncode = self.process.exitcode
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def demo(load_tool, tmp_path, monkeypatch):
    """The tool, in a folder of its own that has the repository's files."""
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return load_tool('demo')


def demonstrate(demo, name, options, monkeypatch, capfd, **sizes):
    """Run a task with its baseline, its last model and a short training."""
    task = demo.TASKS[name]
    generate = partial(task.module.generate_dataset, **sizes)
    monkeypatch.setattr(task.module, 'generate_dataset', generate)
    short = []
    for config in (task.configs[0], task.configs[-1]):
        short.append(f'{Path(config).stem}_short.py')
        Path(short[-1]).write_text(f'_base_ = {config!r}\n{options}')
    task = replace(task, configs=short)
    if name == 'seg':
        monkeypatch.setattr(demo, 'SEGMENTATION', task)
    real = dict(vars(subprocess), Popen=Command)  # run() stays as it is
    monkeypatch.setattr(demo, 'subprocess', SimpleNamespace(**real))
    demo.demonstrate(task, [3])
    out, _ = capfd.readouterr()
    results = Path('work_dirs', task.data.name)
    for config in short:
        work_dir = results / Path(config).stem / 'seed3'
        assert (
            f'$ python tools/train.py {config} --work-dir {work_dir} '
            '--cfg-options randomness.seed=3'
        ) in out
    table = (results / 'comparison.md').read_text()
    assert table in out
    assert all(f'| {Path(config).stem} ' in table for config in short)
    page = (results / 'comparison.html').read_text()
    assert 'attention' in page and 'data:image/jpeg' in page
    with_block = results / Path(short[-1]).stem / 'seed3'
    assert (with_block / 'attention.png').read_bytes().startswith(b'\x89PNG')
    return out, table, with_block


def test_detection_demo_trains_and_compares(demo, monkeypatch, capfd):
    out, table, _ = demonstrate(
        demo, 'det', ONE_EPOCH, monkeypatch, capfd, num_train=8, num_val=2
    )
    # progress
    assert out.count('Epoch(train) [1][1/1]') == 2
    assert out.count('segm_mAP') == 2
    assert 'gain in mask AP' in table


def test_segmentation_demo_trains_and_compares(demo, monkeypatch, capfd):
    out, table, with_block = demonstrate(
        demo, 'seg', TWO_ITERATIONS, monkeypatch, capfd, num_train=8, num_val=4
    )
    assert out.count('Iter(train) [2/2]') == 2
    assert out.count('mIoU: ') == 2
    assert 'gain in mIoU' in table
    assert (with_block / 'predictions.png').read_bytes().startswith(b'\x89PNG')


def test_video_demo_trains_and_compares(demo, monkeypatch, capfd):
    pytest.importorskip('mmaction')
    out, table, _ = demonstrate(
        demo, 'video', ONE_EPOCH, monkeypatch, capfd, num_train=16, num_val=8
    )
    assert out.count('Epoch(train) [1][1/1]') == 2
    assert out.count('acc/top1: ') == 2
    assert 'gain in top-1' in table


@pytest.mark.parametrize(
    'name, toolbox, batch, metric, title',
    [
        ('cls', 'mmpretrain', 8, 'accuracy/top1: ', 'gain in top-1'),
        ('pose', 'mmpose', 16, 'coco/AP: ', 'gain in keypoint AP'),
    ],
)
def test_matching_demos_train_and_compare(
    demo, monkeypatch, capfd, name, toolbox, batch, metric, title
):
    pytest.importorskip(toolbox)
    out, table, _ = demonstrate(
        demo, name, ONE_EPOCH, monkeypatch, capfd, num_train=batch, num_val=8
    )
    assert out.count('Epoch(train) [1][1/1]') == 2
    assert out.count(metric) == 2
    assert title in table


def test_failed_training_ends_the_demo_with_its_own_words(demo):
    with pytest.raises(SystemExit, match="no config 'missing.py'"):
        demo.run('tools/train.py', 'missing.py', '--work-dir', 'work_dirs/demo')


@pytest.mark.parametrize('seeds', [['1', '1'], ['-1'], ['0', 'x']])
def test_bad_seeds_are_refused(demo, monkeypatch, capsys, seeds):
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--seeds', *seeds])
    with pytest.raises(SystemExit):
        demo.parse_args()
    assert '--seeds' in capsys.readouterr().err
