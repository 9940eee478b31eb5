"""tools/demo.py, from generated data to table and pictures."""

import sys
from functools import partial
from pathlib import Path

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


@pytest.fixture
def demo(load_tool, tmp_path, monkeypatch):
    """The tool, in a folder of its own that has the repository's files."""
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return load_tool('demo')


def shorten(demo, monkeypatch, configs, options):
    """Leave the baseline and the last model, with a short training."""
    for name in list(configs)[1:-1]:
        monkeypatch.delitem(configs, name)
    for name, config in configs.items():
        short = f'{Path(config).stem}_short.py'
        Path(short).write_text(f'_base_ = {config!r}\n{options}')
        monkeypatch.setitem(configs, name, short)


def assert_reported(configs, results, out, pictures):
    for config in configs.values():
        work_dir = f'{results}/{Path(config).stem}/seed3'
        assert (
            f'$ python tools/train.py {config} --work-dir {work_dir} '
            '--cfg-options randomness.seed=3'
        ) in out
    table = (results / 'results.md').read_text()
    assert table in out
    assert [line.split('|')[1].strip() for line in table.splitlines()[2:]] == list(
        configs
    )
    for name in pictures:
        assert str(results / name) in out
        assert (results / name).read_bytes().startswith(b'\x89PNG')


def test_detection_demo_trains_and_reports(demo, monkeypatch, capsys):
    monkeypatch.setattr(
        demo.detection,
        'generate_dataset',
        partial(demo.detection.generate_dataset, num_train=8, num_val=2),
    )
    shorten(demo, monkeypatch, demo.DET_CONFIGS, ONE_EPOCH)
    demo.demonstrate_detection([3])
    out = capsys.readouterr().out
    assert_reported(
        demo.DET_CONFIGS, Path('work_dirs/demo'), out, ('curves.png', 'attention.png')
    )
    # progress
    assert out.count('Epoch(train) [1][1/1]') == 2
    assert out.count('segm_mAP') == 2
    assert '+ DisentangledNonLocal2d: box AP' in out


def test_segmentation_demo_trains_and_reports(demo, monkeypatch, capsys):
    monkeypatch.setattr(
        demo.segmentation,
        'generate_dataset',
        partial(demo.segmentation.generate_dataset, num_train=8, num_val=4),
    )
    shorten(demo, monkeypatch, demo.SEG_CONFIGS, TWO_ITERATIONS)
    demo.demonstrate_segmentation([3])
    out = capsys.readouterr().out
    assert_reported(
        demo.SEG_CONFIGS,
        Path('work_dirs/demo_seg'),
        out,
        ('curves.png', 'attention.png', 'predictions.png'),
    )
    assert out.count('Iter(train) [2/2]') == 2
    assert out.count('mIoU: ') == 2
    assert 'disentangled non-local head: mIoU' in out


def test_video_demo_trains_and_reports(demo, monkeypatch, capsys):
    pytest.importorskip('mmaction')
    monkeypatch.setattr(
        demo.video,
        'generate_dataset',
        partial(demo.video.generate_dataset, num_train=16, num_val=8),
    )
    shorten(demo, monkeypatch, demo.VIDEO_CONFIGS, ONE_EPOCH)
    demo.demonstrate_video([3])
    out = capsys.readouterr().out
    assert_reported(
        demo.VIDEO_CONFIGS,
        Path('work_dirs/demo_video'),
        out,
        ('curves.png', 'attention.png'),
    )
    assert out.count('Epoch(train) [1][1/1]') == 2
    assert out.count('acc/top1: ') == 2
    assert '+ DisentangledNonLocal3d: top-1' in out


def test_failed_training_ends_the_demo_with_its_own_words(demo):
    with pytest.raises(SystemExit, match="no config 'missing.py'"):
        demo.train('missing.py', 0, Path('work_dirs/demo/missing/seed0'))


@pytest.mark.parametrize('seeds', [['1', '1'], ['-1'], ['0', 'x']])
def test_bad_seeds_are_refused(demo, monkeypatch, capsys, seeds):
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--seeds', *seeds])
    with pytest.raises(SystemExit):
        demo.parse_args()
    assert '--seeds' in capsys.readouterr().err
