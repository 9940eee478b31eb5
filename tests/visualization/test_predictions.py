"""Label maps of several segmentors, side by side."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from demo import segmentation
from mmengine.config import Config
from mmseg.apis import init_model
from PIL import Image

from nl_plugins.errors import OptionError
from nl_plugins.visualization import predictions

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/nonlocal_r18-2stages_demo.py'


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp('dataset')
    segmentation.generate_dataset(root, num_train=2, num_val=2)
    return root


@pytest.fixture(scope='module')
def config(dataset, tmp_path_factory):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({'test_dataloader.dataset.data_root': f'{dataset}/'})
    path = tmp_path_factory.mktemp('config') / 'config.py'
    cfg.dump(path)
    return path


def build_model(config):
    """A segmentor with random weights."""
    return init_model(str(config), device='cpu')


def test_panels_hold_image_truth_and_each_prediction(config, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        'matplotlib.axes.Axes.imshow', lambda axes, pixels: shown.append(pixels)
    )
    models = {name: build_model(config) for name in 'ab'}
    for label, model in zip((0, 13), models.values()):
        # one class everywhere
        scores = model.decode_head.conv_seg
        torch.nn.init.zeros_(scores.weight)
        torch.nn.init.zeros_(scores.bias)
        scores.bias.data[label] = 1
    titles = []
    monkeypatch.setattr(
        'matplotlib.axes.Axes.set_title',
        lambda axes, text, **kwargs: titles.append(text),
    )
    predictions.plot_predictions(models, [1, 0], tmp_path / 'out.png')
    assert titles == ['input', 'ground truth', 'a', 'b']
    dataset = predictions.dataset_of(models['a'])
    palette = dataset.metainfo['palette']
    assert len(shown) == 2 * 4
    for sample, (image, truth, a, b) in zip((1, 0), zip(*[iter(shown)] * 4)):
        expected = dataset[sample]
        assert np.array_equal(image.transpose(2, 0, 1)[::-1], expected['inputs'])
        labels = expected['data_samples'].gt_sem_seg.data[0].numpy()
        for label in np.unique(labels):
            assert (truth[labels == label] == palette[label]).all()
        assert (a == palette[0]).all() and (b == palette[13]).all()


def test_what_is_ignored_is_black(config, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        'matplotlib.axes.Axes.imshow', lambda axes, pixels: shown.append(pixels)
    )
    model = build_model(config)
    dataset = predictions.dataset_of(model)
    sample = dataset[0]
    sample['data_samples'].gt_sem_seg.data[:, :5] = 255
    monkeypatch.setattr(predictions, 'dataset_of', lambda _: dataset)
    monkeypatch.setattr(type(dataset), '__getitem__', lambda self, index: sample)
    predictions.plot_predictions({'a': model}, [0], tmp_path / 'out.png')
    assert not shown[1][:5].any() and shown[1][5:].any(axis=2).all()


def test_models_of_other_classes_are_refused(config, tmp_path):
    model, other = (build_model(config) for _ in 'ab')
    other.decode_head.num_classes = 2
    with pytest.raises(OptionError, match=r'b must predict the 19 .* has 2'):
        predictions.plot_predictions(dict(a=model, b=other), [0], tmp_path / 'out.png')


def test_a_data_set_without_labels_is_refused(config, tmp_path):
    model = build_model(config)
    pipeline = model.cfg.test_dataloader.dataset.pipeline
    model.cfg.test_dataloader.dataset.pipeline = [
        t for t in pipeline if t.type != 'LoadAnnotations'
    ]
    with pytest.raises(OptionError, match='has no label map of .*000001'):
        predictions.plot_predictions(dict(a=model), [0], tmp_path / 'out.png')


@pytest.fixture
def tool(load_tool):
    return load_tool('visualize_segmentation')


@pytest.fixture
def checkpoint(config, tmp_path):
    model = build_model(config)
    path = tmp_path / 'model.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def test_tool_writes_both_pictures(
    tool, config, checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'visualize_segmentation.py',
            '--model',
            'NL',
            str(config),
            str(checkpoint),
            '--samples',
            '0',
            '1',
            '--point',
            '1',
            '30',
            '40',
            '--out',
            str(tmp_path / 'pictures'),
        ],
    )
    tool.main()
    files = [f'{tmp_path}/pictures/{name}.png' for name in ('predictions', 'attention')]
    assert capsys.readouterr().out.endswith(f'written: {", ".join(files)}\n')
    for name in 'predictions.png', 'attention.png':
        with Image.open(tmp_path / 'pictures' / name) as image:
            assert image.format == 'PNG'


@pytest.mark.parametrize(
    'options, message',
    [
        (['--samples', '2'], 'error: 2 is no image of .*: they are 0 to 1'),
        (['--point', '-1', '3', '4'], 'error: -1 is no image'),
        (
            ['--model', 'NL', 'config', 'checkpoint'],
            'error: each --model needs a name of its own, but got NL, NL',
        ),
        (['--point', '0', '192', '4'], r'error: \(192, 4\) is no pixel .* 192 x 96'),
    ],
)
def test_tool_refuses_what_is_not_there(
    tool, config, checkpoint, tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'visualize_segmentation.py',
            '--model',
            'NL',
            str(config),
            str(checkpoint),
            '--out',
            str(tmp_path / 'pictures'),
            *options,
        ],
    )
    with pytest.raises(SystemExit, match=message):
        tool.main()
    assert not list(tmp_path.glob('pictures/attention*'))


def test_tool_refuses_a_checkpoint_of_another_model(
    tool, config, checkpoint, tmp_path, monkeypatch
):
    content = torch.load(checkpoint)
    del content['state_dict']['decode_head.nl_block.g.conv.weight']
    torch.save(content, checkpoint)
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'visualize_segmentation.py',
            '--model',
            'NL',
            str(config),
            str(checkpoint),
            '--out',
            str(tmp_path / 'pictures'),
        ],
    )
    with pytest.raises(SystemExit, match='does not fit .*\n.*nl_block.g'):
        tool.main()
