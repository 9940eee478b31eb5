"""The generated videos: what is drawn is labelled, and its cue far away."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from demo import video
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from scenes import stripes

decord = pytest.importorskip('decord')

CONFIGS = Path(__file__).parents[3] / 'configs' / 'demo'
BASELINE = 'c2d_r18-2stages_demo.py'
COUNTS = dict(train=16, val=8)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp('dataset')
    video.generate_dataset(root, *COUNTS.values())
    return root


def clips_of(root, subset):
    """Label and decoded frames, RGB, of each listed video."""
    lines = (root / f'kinetics400_{subset}_list_videos.txt').read_text()
    for line in lines.splitlines():
        name, label = line.split()
        reader = decord.VideoReader(f'{root}/videos_{subset}/{name}')
        yield int(label), reader.get_batch(range(len(reader))).asnumpy()


def bright(frame):
    """Columns and rows of the smallest box around what is no background."""
    rows, columns = np.nonzero(frame.max(axis=2) > 130)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def relation(frames):
    """What a look at the frames says of the class, and the gap in pixels."""
    start, end = frames[0].astype(int), frames[-1].astype(int)
    grey = bright(end)
    colours = dict(
        orange=start[..., 0] - start[..., 2] > 90,
        blue=start[..., 2] - start[..., 0] > 90,
    )
    found = {}
    for name, mask in colours.items():
        box = bright(np.where(mask[..., None], start, 0))
        found[stripes(start[box])] = name, box
    assert len(found) == 2
    name, (rows, columns) = found[stripes(end[grey])]
    gap = max(columns.start - grey[1].stop, grey[1].start - columns.stop)
    same = (
        abs(rows.start - grey[0].start) < 3 and abs(columns.start - grey[1].start) < 3
    )
    return ('orange', 'blue').index(name), gap, same


@pytest.mark.parametrize('subset', COUNTS)
def test_the_class_is_the_relation(dataset, subset):
    kinds = Counter()
    for label, frames in clips_of(dataset, subset):
        assert frames.shape == (video.NUM_FRAMES, video.HEIGHT, video.WIDTH, 3)
        told, gap, same = relation(frames)
        assert told == label
        # the coding moves an edge by a pixel or two
        far = gap >= video.MIN_DISTANCE - 4
        assert far != same
        # a pause in between shows nothing
        pause = frames[video.START.stop : video.END.start]
        assert pause.max() < 130
        kinds[label, stripes(frames[-1][bright(frames[-1])]), far] += 1
    assert len(kinds) == 8 and set(kinds.values()) == {COUNTS[subset] // 8}


def test_what_single_frames_show_says_nothing():
    # Over all kinds each class has the same starts and the same ends, up to
    # the places, which are drawn alike.
    rng = np.random.default_rng(0)
    starts, ends = Counter(), Counter()
    for kind in range(8):
        clip = video.sample_clip(rng, kind)
        match, other, grey = clip.patches
        frame = clip.frames[0].astype(int)
        first = [
            (stripes(box), box[..., 0].mean() > box[..., 2].mean())
            for box in (frame[y : y + 24, x : x + 24] for x, y in (match, other))
        ]
        starts[clip.label, tuple(sorted(first))] += 1
        x, y = grey
        ends[clip.label, stripes(clip.frames[-1][y : y + 24, x : x + 24])] += 1
    assert set(starts.values()) == {2} and len(starts) == 4
    assert set(ends.values()) == {2} and len(ends) == 4


def test_same_arguments_give_the_same_frames(dataset, tmp_path):
    for name, seed, same in (('a', 0, True), ('b', 1, False)):
        video.generate_dataset(tmp_path / name, *COUNTS.values(), seed=seed)
        assert all(
            np.array_equal(frames, others) == same
            for (_, frames), (_, others) in zip(
                clips_of(dataset, 'val'), clips_of(tmp_path / name, 'val')
            )
        )


def test_too_few_videos_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match='num_val must be at least 8.*got 7'):
        video.generate_dataset(tmp_path / 'a', num_val=7)
    assert not (tmp_path / 'a').exists()


def test_queries_are_far_grey_patches_of_each_class(dataset):
    labels = dict(
        line.split()
        for line in (dataset / 'kinetics400_val_list_videos.txt')
        .read_text()
        .splitlines()
    )
    queries = video.find_queries(dataset)
    assert [labels[path.name] for path, _ in queries] == ['0', '1']
    for path, (x, y) in queries:
        frames = (
            decord.VideoReader(str(path)).get_batch(range(video.NUM_FRAMES)).asnumpy()
        )
        _, gap, _ = relation(frames)
        assert gap >= video.MIN_DISTANCE - 4
        rows, columns = bright(frames[-1])
        assert rows.start <= y < rows.stop
        assert columns.start <= x < columns.stop


def reach(config, module=None):
    """Frames and columns of the clip on which one position depends.

    A position of the backbone's features, or of the output of a module of it.
    """
    cfg = Config.fromfile(CONFIGS / config)
    init_default_scope('mmaction')
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    for parameter in backbone.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    # mmaction's eval() returns nothing
    backbone.eval()
    x = torch.randn(1, 3, 4, video.HEIGHT, 2 * video.WIDTH)
    x.requires_grad_()
    outputs = []
    if module:
        backbone.get_submodule(module).register_forward_hook(
            lambda module, args, output: outputs.append(output)
        )
    features = backbone(x)
    features = outputs[0] if module else features
    row, column = features.shape[3] // 2, features.shape[4] // 2
    features[0, :, -1, row, column].square().sum().backward()
    seen = x.grad.abs().sum((0, 1, 3))  # frames x columns
    return seen > 0, column * 8


@pytest.mark.parametrize('module, distance', [('layer2.0', 33), (None, 49)])
def test_the_baseline_sees_neither_other_frames_nor_far_places(module, distance):
    # as in the table of the module
    seen, pixel = reach(BASELINE, module)
    assert not seen[:-1].any()
    columns = seen[-1].nonzero().flatten()
    assert (columns.min(), columns.max()) == (pixel - distance, pixel + distance)


def test_no_position_sees_both_patches_before_the_block():
    assert 2 * 33 < video.MIN_DISTANCE


@pytest.mark.parametrize(
    'name, frames, columns',
    [
        ('nl-c3-space', False, True),
        ('nl-c3-time', True, False),
        ('nl-c3', True, True),
        ('dnl-c3', True, True),
    ],
)
def test_blocks_see_what_their_names_say(name, frames, columns):
    seen, pixel = reach(f'c2d_r18-2stages-{name}_demo.py')
    assert seen[:-1].any() == frames
    far = seen[:, : pixel - 49].any() and seen[:, pixel + 50 :].any()
    assert far == columns
