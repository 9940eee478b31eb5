"""The tools train and test segmentation and video like detection."""

import json
import pickle
from pathlib import Path

import commands
import cv2
import hub
import numpy as np
import pytest

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / 'configs'
BLOCK = "dict(type='nl_plugins.NonLocal{}d', after='layer4.-1')"

SEGMENTATION = f"""
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNetV1c',
        depth=18,
        stem_channels=8,
        base_channels=8,
        blocks=[{BLOCK.format(2)}]),
    decode_head=dict(in_channels=64, channels=8),
    auxiliary_head=dict(in_channels=32, channels=8))
loader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root='cityscapes',
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs')
        ]))
train_dataloader = val_dataloader = test_dataloader = loader
train_cfg = dict(max_iters=1, val_interval=1)
"""

VIDEO = f"""
_base_ = 'mmaction::_base_/default_runtime.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3dSlowOnly',
        depth=50,
        base_channels=4,
        conv1_kernel=(1, 7, 7),
        inflate=(0, 0, 1, 1),
        blocks=[{BLOCK.format(3)}]),
    cls_head=dict(
        type='I3DHead', in_channels=128, num_classes=2, average_clips='prob'),
    data_preprocessor=dict(
        type='ActionDataPreprocessor', mean=[128.], std=[64.],
        format_shape='NCTHW'))
pipeline = [
    dict(type='SampleFrames', clip_len=2, frame_interval=1, num_clips=1),
    dict(type='RawFrameDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs')
]
loader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='RawframeDataset',
        ann_file='videos.txt',
        data_prefix=dict(img='.'),
        pipeline=pipeline))
train_dataloader = val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(type='AccMetric')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.01))
"""


def run_tool(folder: Path, tool: str, *arguments: str) -> None:
    """Run a tool in a folder; its output is shown when it fails."""
    commands.run(folder, tool, 'config.py', *arguments, home=folder)


def noise(shape: tuple[int, ...], high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.uint8)


@pytest.fixture
def cityscapes(tmp_path) -> Path:
    """Two pictures of noise, laid out like Cityscapes, and their config."""
    (tmp_path / 'config.py').write_text(SEGMENTATION)
    # of the published name, as narrow as the model
    hub.write(
        tmp_path,
        'open-mmlab://resnet50_v1c',
        hub.resnet(18, deep_stem=True, width=8, stem=8),
    )
    for kind in 'images', 'labels':
        (tmp_path / 'cityscapes' / kind).mkdir(parents=True)
    for name in 'a', 'b':
        cv2.imwrite(
            f'{tmp_path}/cityscapes/images/{name}_leftImg8bit.png', noise((32, 32, 3))
        )
        cv2.imwrite(
            f'{tmp_path}/cityscapes/labels/{name}_gtFine_labelTrainIds.png',
            noise((32, 32), 19),
        )
    return tmp_path


def test_segmentation(cityscapes):
    run_tool(cityscapes, 'train.py')
    run_tool(
        cityscapes,
        'test.py',
        'work_dirs/config/iter_1.pth',
        '--tta',
        '--out',
        'predictions',
        '--show-dir',
        'pictures',
        '--work-dir',
        'tested',
    )
    for name in 'a', 'b':
        label_map = cv2.imread(
            f'{cityscapes}/predictions/{name}_leftImg8bit.png', cv2.IMREAD_UNCHANGED
        )
        assert label_map.shape == (32, 32) and label_map.max() < 19
        assert list(cityscapes.glob(f'pictures/**/*{name}_leftImg8bit*.png'))
    (metrics,) = cityscapes.glob('tested/*/*.json')
    assert 'mIoU' in json.loads(metrics.read_text())


def test_an_upstream_model_upgraded(cityscapes):
    # MMSegmentation's own head and blocks, trained and tested as they are,
    # then tested with ours.
    config = SEGMENTATION.replace('fcn/fcn_r50', 'nonlocal_net/nonlocal_r50')
    config = config.replace("type='nl_plugins.WithBlocks',", '')
    config = config.replace("base='ResNetV1c',", '')
    config = config.replace(f'blocks=[{BLOCK.format(2)}]', '')
    (cityscapes / 'config.py').write_text(config)
    run_tool(cityscapes, 'train.py')
    checkpoint = 'work_dirs/config/iter_1.pth'
    for name, options in (('as_it_is', []), ('upgraded', ['--upgrade'])):
        run_tool(
            cityscapes,
            'test.py',
            checkpoint,
            *options,
            '--out',
            f'{name}_maps',
            '--work-dir',
            name,
        )
    logs, metrics, maps = {}, {}, {}
    for name in 'as_it_is', 'upgraded':
        (log,) = cityscapes.glob(f'{name}/*/*.log')
        logs[name] = log.read_text()
        (file,) = cityscapes.glob(f'{name}/*/*.json')
        metrics[name] = json.loads(file.read_text())['mIoU']
        maps[name] = [
            path.read_bytes() for path in sorted(cityscapes.glob(f'{name}_maps/*.png'))
        ]
    assert 'upgraded 1 non-local block' in logs['upgraded']
    assert 'upgraded' not in logs['as_it_is'].replace('upgraded_', '')
    assert metrics['upgraded'] == metrics['as_it_is']
    assert len(maps['upgraded']) == 2 and (maps['upgraded'] == maps['as_it_is'])


@pytest.fixture
def videos(tmp_path) -> Path:
    """Two videos of noise, as folders of frames, and their config."""
    pytest.importorskip('mmaction')
    (tmp_path / 'config.py').write_text(VIDEO)
    for name in 'a', 'b':
        (tmp_path / name).mkdir()
        for frame in range(1, 5):
            cv2.imwrite(f'{tmp_path}/{name}/img_{frame:05d}.jpg', noise((32, 32, 3)))
    (tmp_path / 'videos.txt').write_text('a 4 0\nb 4 1\n')
    return tmp_path


def test_video(videos):
    run_tool(videos, 'train.py')
    run_tool(
        videos,
        'test.py',
        'work_dirs/config/epoch_1.pth',
        '--out',
        'predictions.pkl',
        '--work-dir',
        'tested',
    )
    predictions = pickle.loads((videos / 'predictions.pkl').read_bytes())
    assert [len(p['pred_score']) for p in predictions] == [2, 2]
    (metrics,) = videos.glob('tested/*/*.json')
    assert 'acc/top1' in json.loads(metrics.read_text())


VIDEO_FILES = f"""
_base_ = {str(CONFIGS / 'demo/c2d_r18-2stages-nl-c3_demo.py')!r}
views = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=1, num_clips=10,
         test_mode=True),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 32)),
    dict(type='ThreeCrop', crop_size=32),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs')
]
data = dict(ann_file='videos.txt', data_prefix=dict(video='.'))
train_dataloader = dict(batch_size=2, dataset=data)
val_dataloader = dict(batch_size=2, dataset=data)
test_dataloader = dict(batch_size=1, dataset=dict(pipeline=views, **data))
train_cfg = dict(max_epochs=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


@pytest.fixture
def video_files(tmp_path) -> Path:
    """Four MP4 files, one of them shorter than a clip, and their config."""
    pytest.importorskip('mmaction')
    (tmp_path / 'config.py').write_text(VIDEO_FILES)
    lines = []
    for name, length in (('a', 20), ('b', 20), ('short', 2), ('c', 20)):
        writer = cv2.VideoWriter(
            f'{tmp_path}/{name}.mp4', cv2.VideoWriter_fourcc(*'mp4v'), 8, (64, 48)
        )
        for _ in range(length):
            writer.write(noise((48, 64, 3)))
        writer.release()
        lines.append(f'{name}.mp4 {len(lines) % 2}\n')
    (tmp_path / 'videos.txt').write_text(''.join(lines))
    return tmp_path


def test_video_files_with_clips_and_crops(video_files):
    run_tool(video_files, 'train.py')
    run_tool(
        video_files,
        'test.py',
        'work_dirs/config/epoch_1.pth',
        '--out',
        'predictions.pkl',
    )
    predictions = pickle.loads((video_files / 'predictions.pkl').read_bytes())
    assert len(predictions) == 4
    scores = np.array([sample['pred_score'] for sample in predictions])
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_a_corrupt_video_is_named(video_files):
    whole = (video_files / 'b.mp4').read_bytes()
    (video_files / 'b.mp4').write_bytes(whole[:100])
    process = commands.start(video_files, 'train.py', 'config.py', home=video_files)
    process.join()
    assert process.exitcode == 1
    output = (video_files / 'output.txt').read_text()
    error = output.splitlines()[-1]
    assert error.startswith('error: ') and 'Traceback' not in output
    assert 'b.mp4 of videos.txt cannot be read: ' in error
