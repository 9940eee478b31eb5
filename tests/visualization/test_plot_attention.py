"""Pictures of what blocks attend to, by a visualizer and during training."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from demo import segmentation, video
from mmengine.hooks import IterTimerHook
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement, InstanceData

from nl_plugins import AttentionVisualizationHook, NonLocal3d, engine
from nl_plugins.engine.config import load_config
from nl_plugins.errors import OptionError
from nl_plugins.visualization import attention, changes, figures, hook, queries, records
from nl_plugins.visualization.samples import load_model, sample_from_file

CONFIGS = Path(__file__).parents[2] / 'configs' / 'demo'
DNL = str(CONFIGS / 'dnl_r18-2stages_demo.py')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('scenes')
    segmentation.generate_dataset(root, 2, 2)
    return root


@pytest.fixture(scope='module')
def trained(scenes, tmp_path_factory):
    """Work directory of a training of two iterations with the hook."""
    work_dir = tmp_path_factory.mktemp('work')
    loader = dict(
        num_workers=0,
        persistent_workers=False,
        batch_size=2,
        dataset=dict(data_root=str(scenes)),
    )
    cfg = load_config(
        DNL,
        dict(
            train_dataloader=loader,
            val_dataloader=loader,
            train_cfg=dict(max_iters=2, val_interval=2),
            default_hooks=dict(logger=dict(interval=1)),
            custom_hooks=[
                dict(
                    type='nl_plugins.AttentionVisualizationHook',
                    interval=2,
                    samples=[1],
                    points=[(10, 20)],
                )
            ],
        ),
        str(work_dir),
    )
    engine.train(cfg)
    return work_dir


def pictures(folder):
    return {
        path.name: cv2.imread(str(path)) for path in folder.rglob('vis_image/*.png')
    }


def test_the_hook_draws_during_training(trained):
    assert sorted(pictures(trained)) == [
        f'attention_1_{what}_2.png'
        for what in ('change', 'point0', 'with_block', 'without_block')
    ]
    (log,) = trained.glob('*/*.log')
    assert 'attention of sample 1: ' in log.read_text()


def test_the_hook_leaves_the_model_as_it_was(monkeypatch):

    class Runner:
        iter = 4
        model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
        val_dataloader = type('', (), dict(dataset=['a', 'b']))
        visualizer = None
        hooks = [IterTimerHook()]

    Runner.hooks[0].t = 0.0
    Runner.model[0].eval()  # frozen
    states = []

    def plot(model, data, *args):
        time.sleep(0.05)
        states.append((data, [m.training for m in model]))
        return []

    monkeypatch.setattr(attention, 'plot_attention', plot)
    plotting = AttentionVisualizationHook(interval=5)
    plotting.after_train_iter(Runner, 4)
    assert states == [('a', [False, False]), ('b', [False, False])]
    assert [m.training for m in Runner.model] == [False, True]
    # not counted as time of the next iteration
    assert 0.1 <= Runner.hooks[0].t < 5
    Runner.iter = 5
    plotting.after_train_iter(Runner, 5)
    assert len(states) == 2


def test_a_picture_that_fails_does_not_end_the_training(monkeypatch):
    runner = type(
        'Runner',
        (),
        dict(
            iter=4,
            model=torch.nn.Identity(),
            visualizer=None,
            hooks=[],
            val_dataloader=type('', (), dict(dataset=['a', 'b'])),
        ),
    )

    def plot(*args):
        raise OptionError('(9, 9) is no pixel')

    monkeypatch.setattr(attention, 'plot_attention', plot)
    printed = []
    monkeypatch.setattr(hook, 'print_log', lambda text, **kwargs: printed.append(text))
    AttentionVisualizationHook(interval=5).after_train_iter(runner, 4)
    assert printed == ['AttentionVisualizationHook: (9, 9) is no pixel']


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(samples=3), 'samples must be a list of integers, but got 3'),
        (dict(points=[(5,)]), r'points must be a list of .* got \[\(5,\)\]'),
        (dict(interval=0), 'interval must be .* at least 1, but got 0'),
        (dict(samples=[2]), '2 is no sample of the validation, they are 0 to 1'),
        (dict(block='x'), "no block 'x'"),
        (dict(scale='log'), 'scale must be one of max, uniform, shared, but got log'),
    ],
)
def test_bad_options_of_the_hook_are_refused(options, message):

    class Runner:
        val_loop = True
        model = torch.nn.Sequential(NonLocal3d(4))
        val_dataloader = type('', (), dict(dataset=['a', 'b']))

    with pytest.raises(OptionError, match=message):
        AttentionVisualizationHook(**options).before_train(Runner)


def test_without_validation_the_hook_says_so():
    runner = type('', (), dict(val_loop=None))
    with pytest.raises(OptionError, match='validation, and the config has no'):
        AttentionVisualizationHook().before_train(runner)


def test_pictures_of_an_image(trained, scenes, tmp_path):
    model = load_model(DNL, str(trained / 'iter_2.pth'))
    # It has begun as an identity: let it change the prediction.
    _, block = records.choose_block(model)
    torch.nn.init.normal_(block.conv_out.norm.weight, std=50.0)
    image, _ = segmentation.find_queries(scenes)[0]
    visualizer = attention.build_visualizer(
        model.cfg, str(tmp_path), model.dataset_meta
    )
    lines = attention.plot_attention(
        model,
        sample_from_file(model.cfg, image),
        visualizer,
        'name',
        [(10, 20), (100, 50)],
    )
    assert lines[0] == 'block: decode_head.dnl_block'
    assert len(lines) == 2 and 'of the pixels' in lines[1]
    assert not lines[1].startswith('0.0 %')
    found = pictures(tmp_path)
    assert sorted(found) == [
        f'name_{what}_0.png'
        for what in ('change', 'point0', 'point1', 'with_block', 'without_block')
    ]
    # input, pairwise and unary, 2.2 inches each
    picture = found['name_point0_0.png']
    assert picture.shape[1] == round(200 * (3 * 2.2 + 2 * 0.1))
    title, height = round(200 * 0.3), 220
    seen = picture[title : title + height, :440]
    expected = cv2.resize(cv2.imread(str(image)), (440, height))
    different = np.abs(seen.astype(int) - expected).max(axis=2) > 100
    rows, columns = np.nonzero(different)
    assert 20 < different.sum() < 800  # the cross alone
    assert abs(rows.mean() - 20 * height / 96) < 4
    assert abs(columns.mean() - 10 * height / 96) < 4
    with_block, without = (
        found[f'name_{what}_block_0.png'] for what in ('with', 'without')
    )
    assert with_block.shape == without.shape == (96, 192, 3)
    assert (with_block != without).any()


def clip_of_20_frames():
    """Frame t is as bright as 10 t; the block looks at frame 15."""
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None] * 10
    seen = records.Record(
        'block',
        NonLocal3d(4),
        torch.zeros(1, 4, 20, 2, 2),
        frames.repeat(64, 1).repeat(120, 2).repeat(3, 3),
        (64, 120),
        (0, 0, 120, 64),
        BaseDataElement(),
    )
    weights = np.zeros((20, 64, 120), np.float32)
    weights[14] = 1
    return seen, dict(pairwise=queries.AttentionMap(weights, 0.05, 20.0))


def test_strips_of_a_long_clip():
    seen, maps = clip_of_20_frames()
    strip, heat = attention._panels(seen, (60, 32), 10, maps)
    width = 120 + 2  # and the space
    shown = [strip.image[5, width * i + 5, 0] // 10 for i in range(8)]
    assert shown == [2, 4, 6, 8, 10, 12, 14, 16]
    # the weight in the frame that has it, in multiples of the mean
    weights = [heat.values[5, width * i + 5] for i in range(8)]
    assert weights == [0] * 6 + [20, 0]
    assert strip.cross == (4 * width + 60, 32) and strip.border == (4 * width, 120)
    # the first and the last frame as well
    for frame, expected in ((0, range(0, 16, 2)), (19, range(5, 20, 2))):
        strip, _ = attention._panels(seen, (60, 32), frame, maps)
        shown = [strip.image[30, width * i + 5, 0] // 10 for i in range(8)]
        assert shown == list(expected)


@pytest.mark.parametrize('suffix', ['.gif', '.mp4'])
def test_animation_of_a_clip(suffix, tmp_path, monkeypatch):
    seen, maps = clip_of_20_frames()
    monkeypatch.setattr(attention, 'attention_from', lambda *args: maps)
    path = tmp_path / f'clip{suffix}'
    figures.animate(attention._frames_of_clip(seen, (60, 32), 'max'), path)
    video = cv2.VideoCapture(str(path))
    pictures = [video.read()[1] for _ in range(20)]
    assert video.read()[0] is False
    # the input at the left, brighter in every frame
    inputs = [int(picture[100:200, 20:100].mean()) for picture in pictures]
    assert all(abs(found - 10 * t) < 8 for t, found in enumerate(inputs))
    # the map at the right is brightest where the weight is
    heats = [picture[100:200, 480:560, 2].mean() for picture in pictures]
    assert np.argmax(heats) == 14


def test_pictures_of_a_video(tmp_path):
    pytest.importorskip('mmaction')
    from mmaction.apis import init_recognizer

    video.generate_dataset(tmp_path / 'data', 8, 8)
    clip, _ = video.find_queries(tmp_path / 'data')[0]
    model = init_recognizer(
        str(CONFIGS / 'c2d_r18-2stages-dnl-c3_demo.py'), device='cpu'
    )
    visualizer = attention.build_visualizer(model.cfg, str(tmp_path), {})
    lines = attention.plot_attention(
        model, sample_from_file(model.cfg, clip), visualizer, 'name', [(10, 20)]
    )
    assert len(lines) == 3 and lines[1].startswith('class ')
    found = pictures(tmp_path)
    assert sorted(found) == ['name_change_0.png', 'name_point0_0.png']
    # strips of four frames over the whole width
    assert found['name_point0_0.png'].shape[1] == 1380


def test_a_dataset_may_name_fewer_classes_than_the_head_has(tmp_path):
    pytest.importorskip('mmaction')
    from mmaction.apis import init_recognizer

    video.generate_dataset(tmp_path / 'data', 8, 8)
    clip, _ = video.find_queries(tmp_path / 'data')[0]
    model = init_recognizer(
        str(CONFIGS / 'c2d_r18-2stages-nl-c3_demo.py'), device='cpu'
    )
    visualizer = attention.build_visualizer(
        model.cfg, str(tmp_path), dict(classes=('first',))
    )
    lines = attention.plot_attention(
        model, sample_from_file(model.cfg, clip), visualizer, 'name', [(10, 20)]
    )
    assert {line.partition(':')[0] for line in lines[1:]} == {
        'class first',
        'class class 1',
    }
    assert visualizer.dataset_meta == dict(classes=('first',))


def test_detections_of_a_class_without_a_name(tmp_path):
    from mmdet.structures import DetDataSample

    result = DetDataSample(
        pred_instances=InstanceData(
            bboxes=torch.tensor([[2.0, 2.0, 30.0, 30.0]]),
            scores=torch.ones(1),
            labels=torch.tensor([3]),
        )
    )
    meta = changes.name_all_classes(
        dict(
            classes=['cat', 'dog'], palette=[(1, 2, 3), (4, 5, 6)], dataset_type='pets'
        ),
        result,
    )
    assert meta['classes'] == ('cat', 'dog', 'class 2', 'class 3')
    assert meta['palette'][:2] == [(1, 2, 3), (4, 5, 6)]
    assert len(meta['palette']) == 4 and meta['dataset_type'] == 'pets'
    cfg = load_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    init_default_scope('mmdet')
    visualizer = attention.build_visualizer(cfg, str(tmp_path), meta)
    visualizer.add_datasample(
        'name', np.zeros((40, 40, 3), np.uint8), result, draw_gt=False
    )
    assert 'name_0.png' in pictures(tmp_path)


def test_classes_of_a_video_without_a_name():
    result = BaseDataElement(pred_score=torch.tensor([0.1, 0.2, 0.7]))
    meta = changes.name_all_classes(dict(classes=['run']), result, result)
    assert changes.describe_change(result, result, meta['classes'])[0] == (
        'class class 2: 0.700 with the block, 0.700 without'
    )
    assert changes.name_all_classes(None, result) == {}
