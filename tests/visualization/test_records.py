"""What a block sees and contributes, and from where it is looked at."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image

from nl_plugins import DisentangledNonLocal2d, NonLocal2d, NonLocal3d
from nl_plugins.errors import OptionError
from nl_plugins.registry import MODELS
from nl_plugins.visualization import changes, queries, records
from nl_plugins.visualization.samples import load_model, sample_from_file

CONFIGS = Path(__file__).parents[2] / 'configs' / 'demo'


def seen_by(block, size, frames, padded=None, original=None, result=None):
    """What a model with this block would have seen."""
    padded = padded or frames[1:3]
    height, width = original or frames[1:3]
    return records.Record(
        'block',
        block,
        torch.randn(1, block.in_channels, *size),
        np.zeros((*frames, 3), np.uint8),
        padded,
        (0, 0, width, height),
        result or BaseDataElement(),
    )


def looks_from(seen, monkeypatch, *args):
    """The position at which the block is asked."""
    asked = []

    def attention_weights(block, x, positions):
        asked.extend(positions.tolist())
        return torch.rand(1, 1, *x.shape[2:]), None

    monkeypatch.setattr(type(seen.block), 'attention_weights', attention_weights)
    queries.attention_from(seen, *args)
    return tuple(asked[0])


def test_a_pixel_of_an_image_that_was_resized_and_padded(monkeypatch):
    # 45 x 90 pixels, seen twice as large, padded to 96 x 192; stride 8
    seen = seen_by(NonLocal2d(8), (12, 24), (1, 90, 180), (96, 192), (45, 90))
    assert looks_from(seen, monkeypatch, (44.5, 22.5)) == (5, 11)
    assert looks_from(seen, monkeypatch, (89, 44)) == (11, 22)


def test_a_frame_of_a_clip_whose_frames_were_merged(monkeypatch):
    seen = seen_by(NonLocal3d(8), (4, 6, 6), (8, 48, 48))
    assert looks_from(seen, monkeypatch, (40.0, 9.0), 5) == (2, 1, 5)
    assert looks_from(seen, monkeypatch, (0.0, 0.0), -1) == (3, 0, 0)


def test_maps_are_cut_where_the_padding_begins():
    seen = seen_by(DisentangledNonLocal2d(8), (3, 4), (1, 20, 30), (24, 32))
    maps = queries.attention_from(seen, (29.0, 19.0))
    pairwise, unary = seen.block.attention_weights(
        seen.features, torch.tensor([[2, 3]])
    )
    for term, expected in dict(pairwise=pairwise[0], unary=unary).items():
        assert maps[term].weights.shape == (1, 20, 30)
        assert maps[term].peak == pytest.approx(float(expected.max() * 12), rel=1e-4)
        # the middle of a cell of 8 x 8 pixels
        large = maps[term].weights[0]
        assert large[11:13, 11:13].mean() == pytest.approx(
            float(expected[0, 1, 1]), rel=1e-2
        )


def test_a_pixel_outside_is_refused():
    seen = seen_by(NonLocal2d(8), (4, 4), (1, 32, 64))
    with pytest.raises(OptionError, match=r'\(64.0, 3.0\) is no .* 64 x 32'):
        queries.attention_from(seen, (64.0, 3.0))


def test_points_are_the_best_detections_or_a_grid():
    boxes = torch.tensor([[0.0, 0, 10, 20], [20, 4, 40, 8], [0, 0, 2, 2]])
    found = BaseDataElement(
        pred_instances=InstanceData(bboxes=boxes, scores=torch.tensor([0.2, 0.9, 0.1]))
    )
    seen = seen_by(NonLocal2d(8), (4, 4), (1, 32, 64), result=found)
    assert queries.default_points(seen, 2) == [(30, 6), (5, 10)]
    empty = BaseDataElement(
        pred_instances=InstanceData(bboxes=torch.zeros(3, 4), scores=torch.rand(3))
    )
    nothing = BaseDataElement(
        pred_instances=InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0))
    )
    for result in nothing, empty, BaseDataElement():
        assert queries.default_points(seen._replace(result=result)) == [
            (16, 8),
            (48, 8),
            (16, 24),
            (48, 24),
        ]


def test_a_block_is_chosen_by_its_name():
    model = torch.nn.Sequential(NonLocal2d(4), torch.nn.Sequential(NonLocal2d(4)))
    assert records.choose_block(model)[0] == '1.0'
    assert records.choose_block(model, '0')[1] is model[0]
    with pytest.raises(OptionError, match="no block 'x', it has '0', '1.0'"):
        records.choose_block(model, 'x')
    with pytest.raises(OptionError, match='at least one .* Conv2d has 0'):
        records.choose_block(torch.nn.Conv2d(1, 1, 1))


def test_a_block_that_is_off_hands_its_input_on():
    block = NonLocal2d(4, zeros_init=False, std=1.0)
    x = torch.randn(1, 4, 5, 5)
    with records.switched_off(block):
        assert torch.equal(block(x), x)
    assert not torch.allclose(block(x), x)


def test_a_change_is_told_in_the_terms_of_the_task():
    labels = [
        BaseDataElement(
            pred_sem_seg=PixelData(data=torch.tensor([[[0, 1], [last, 1]]]))
        )
        for last in (0, 1)
    ]
    assert changes.describe_change(*labels) == [
        '25.0 % of the pixels change their class'
    ]
    stuff = [
        BaseDataElement(
            pred_panoptic_seg=PixelData(sem_seg=torch.tensor([[[0, last]]]))
        )
        for last in (0, 1)
    ]
    assert changes.describe_change(*stuff) == [
        '50.0 % of the pixels change their class'
    ]
    boxes = [
        BaseDataElement(pred_instances=InstanceData(scores=torch.tensor(scores)))
        for scores in ([0.9, 0.6], [0.9, 0.2])
    ]
    assert changes.describe_change(*boxes)[1] == (
        'detections with a score of at least 0.5: 2 with the block, 1 without'
    )
    videos = [
        BaseDataElement(pred_score=torch.tensor(scores))
        for scores in ([0.1, 0.7], [0.4, 0.6])
    ]
    assert changes.describe_change(*videos, classes=['run', 'jump']) == [
        'class jump: 0.700 with the block, 0.600 without',
        'class run: 0.100 with the block, 0.400 without',
    ]


@pytest.fixture(scope='module')
def upstream(tmp_path_factory):
    """Config and checkpoint of a model with upstream's block."""
    folder = tmp_path_factory.mktemp('upstream')
    config = folder / 'upstream.py'
    config.write_text(
        f"_base_ = '{CONFIGS / 'fcn_r18-2stages_demo.py'}'\n"
        "model = dict(decode_head=dict(_delete_=True, type='NLHead', "
        'in_channels=64, in_index=0, channels=64, num_classes=19, '
        'concat_input=False, align_corners=False))\n'
    )
    from nl_plugins.engine.config import load_config

    model = MODELS.build(load_config(str(config)).model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'model.pth')
    return str(config), str(folder / 'model.pth')


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp('image') / 'image.png'
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_upstreams_block_is_upgraded_and_looked_into(upstream, image):
    model = load_model(*upstream)
    assert not model.training
    assert model.dataset_meta['classes'][0] == 'road'
    name, block = records.choose_block(model)
    assert name == 'decode_head.nl_block' and type(block) is NonLocal2d
    seen = records.record(model, sample_from_file(model.cfg, image), name)
    assert seen.features.shape == (1, 64, 8, 12)
    # as the model sees it, but RGB
    assert np.array_equal(seen.frames[0], np.array(Image.open(image)))
    assert (seen.padded, seen.window) == ((64, 96), (0, 0, 96, 64))
    assert not block._forward_pre_hooks


def test_files_that_cannot_be_read_are_named(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'fcn_r18-2stages_demo.py')
    with pytest.raises(OptionError, match="no file 'no.png'"):
        sample_from_file(cfg, 'no.png')
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'no picture')
    with pytest.raises(OptionError, match='broken.png cannot be read as an '):
        sample_from_file(cfg, broken)


def test_a_block_that_does_not_run_is_named(upstream, image):
    model = load_model(*upstream)
    model.idle = NonLocal2d(4)
    data = sample_from_file(model.cfg, image)
    with pytest.raises(
        OptionError, match='idle does not run .*; choose .* decode_head.nl_block$'
    ):
        records.record(model, data, 'idle')
    # by default the last one that runs
    assert records.record(model, data).name == 'decode_head.nl_block'


class Regions(torch.nn.Module):
    """A model whose block sees seven regions of the image."""

    def __init__(self):
        super().__init__()
        self.block = NonLocal2d(4)

    def test_step(self, data):
        self.block(torch.rand(7, 4, 5, 5))
        return data['data_samples']


def test_a_block_that_sees_regions_is_refused():
    model = Regions()
    data = dict(
        inputs=torch.zeros(3, 8, 8, dtype=torch.uint8), data_samples=BaseDataElement()
    )
    with pytest.raises(OptionError, match='whole image, but 7 regions of it'):
        records.record(model, data, 'block')


class Frames(torch.nn.Module):
    """A 2D recognizer whose wrapper folds the frames back, as upstream's."""

    def __init__(self):
        super().__init__()
        self.block = NonLocal3d(4)

    def test_step(self, data):
        self.block(torch.rand(10, 4, 8, 5, 5))
        return data['data_samples']


def test_frames_of_the_first_crop_where_upstream_folds_them():
    model = Frames()
    inputs = torch.arange(80, dtype=torch.uint8)[:, None, None, None]
    data = dict(inputs=inputs.repeat(1, 3, 40, 40), data_samples=BaseDataElement())
    seen = records.record(model, data, 'block')
    assert seen.features.shape == (1, 4, 8, 5, 5)
    assert [int(frame.max()) for frame in seen.frames] == list(range(8))


def test_the_pipeline_is_that_of_the_test(image):
    cfg = Config.fromfile(CONFIGS / 'fcn_r18-2stages_demo.py')
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(48, 32)))
    assert sample_from_file(cfg, image)['inputs'].shape == (3, 32, 48)
    cfg.test_dataloader = None
    with pytest.raises(OptionError, match='no test_dataloader'):
        sample_from_file(cfg, image)
