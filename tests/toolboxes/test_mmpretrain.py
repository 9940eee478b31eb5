"""The adapter of MMPreTrain: batches, files, TTA, what a block sees."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from PIL import Image

from nl_plugins.analysis.complexity import input_shape, measure_complexity
from nl_plugins.engine.config import build_model, load_config
from nl_plugins.errors import OptionError
from nl_plugins.toolboxes import toolbox_of
from nl_plugins.visualization import attention, queries, records
from nl_plugins.visualization.samples import load_model, sample_from_file

pytest.importorskip('mmpretrain')
pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / 'configs/demo/resnet18-2stages-nl-c3_demo.py'


def test_parameters_and_flops_are_those_of_the_published_model():
    cfg = load_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')
    assert input_shape(cfg) == (224, 224)
    cost = measure_complexity(cfg)
    # the metafile of MMPreTrain
    assert cost.parameters == pytest.approx(25.56e6, rel=1e-3)
    assert cost.flops == pytest.approx(4.12e9, rel=1e-2)


@pytest.mark.parametrize(
    'name, size',
    [
        ('vision_transformer/vit-base-p16_64xb64_in1k-384px.py', 384),
        ('swin_transformer/swin-tiny_16xb64_in1k.py', 224),
        ('resnet/resnet50_8xb16_cifar10.py', None),
    ],
)
def test_the_size_of_the_input(name, size):
    cfg = load_config('mmpretrain::' + name)
    if size is None:  # images as they are
        with pytest.raises(OptionError, match='does not say the size'):
            input_shape(cfg)
    else:
        assert input_shape(cfg) == (size, size)


def test_the_batch_trains_and_is_predicted():
    cfg = load_config(str(CONFIG))
    model = build_model(cfg)
    batch = toolbox_of(cfg).batch(model, input_shape(cfg), 2)
    assert batch['inputs'][0].shape == (3, 96, 192)
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    assert torch.isfinite(losses['loss'])
    model.eval()
    with torch.no_grad():
        assert model.test_step(batch)[0].pred_score.shape == (2,)


@pytest.fixture
def image(tmp_path) -> Path:
    """A dark image with one bright square of 9 x 9 pixels around (150, 40)."""
    pixels = np.zeros((100, 240, 3), np.uint8)
    pixels[36:45, 146:155] = 255
    path = tmp_path / 'image.png'
    Image.fromarray(pixels).save(path)
    return path


def test_a_pixel_of_the_image_is_found_in_the_centre_crop(image):
    cfg = load_config(str(CONFIG))
    cfg.test_dataloader.dataset.pipeline[1:2] = [
        dict(type='ResizeEdge', scale=64, edge='short'),
        dict(type='CenterCrop', crop_size=56),
    ]
    model = build_model(cfg).eval()
    name, _ = records.choose_block(model)
    seen = records.record(model, sample_from_file(cfg, image), name)
    assert seen.frames.shape == (1, 56, 56, 3)
    rows, columns = np.nonzero(seen.frames[0].max(axis=2) > 128)
    column, row = queries.seen_pixel(seen, (150, 40))
    assert column == pytest.approx(columns.mean(), abs=1)
    assert row == pytest.approx(rows.mean(), abs=1)
    assert queries.attention_from(seen, (150, 40))['pairwise'].peak >= 1
    with pytest.raises(OptionError, match='part of the image that the model sees'):
        queries.attention_from(seen, (20, 40))  # cropped away
    for point in queries.default_points(seen):
        queries.attention_from(seen, point)


def test_tta_averages_the_scores_of_both_flips(image):
    cfg = load_config(str(CONFIG))
    model = build_model(cfg).eval()
    samples = []
    for flip in False, True:
        pixels = np.array(Image.open(image))
        Image.fromarray(pixels[:, ::-1] if flip else pixels).save(image)
        samples.append(sample_from_file(cfg, image))
    with torch.no_grad():
        expected = sum(
            model.test_step(pseudo_collate([sample]))[0].pred_score
            for sample in samples
        )
    Image.fromarray(np.array(Image.open(image))[:, ::-1]).save(image)
    toolbox_of(cfg).use_tta(cfg)
    tta = build_model(cfg).eval()
    tta.module.load_state_dict(model.state_dict())
    with torch.no_grad():
        (result,) = tta.test_step(pseudo_collate([sample_from_file(cfg, image)]))
    assert torch.allclose(result.pred_score, expected / 2, atol=1e-5)


def test_pictures_of_several_views_are_refused():
    cfg = load_config(str(CONFIG))
    toolbox_of(cfg).use_visualization(cfg, False, 'pictures', 0)
    with pytest.raises(OptionError, match='without --tta'):
        toolbox_of(cfg).use_tta(cfg)


def test_a_tta_of_the_config_is_kept():
    cfg = load_config(str(CONFIG))
    cfg.tta_pipeline = ['own']
    cfg.tta_model = ConfigDict(type='Own')
    toolbox_of(cfg).use_tta(cfg)
    assert cfg.test_dataloader.dataset.pipeline == ['own']
    assert cfg.model.type == 'Own'


def test_no_gradient_passes_the_head_of_a_vit_before_it_has_moved():
    # said in docs/inserting.md; MMPreTrain's head starts with weights of zero
    cfg = load_config('mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py')
    cfg.model.train_cfg = None
    cfg.model.head.in_channels = 192
    cfg.model.backbone.update(
        type='nl_plugins.WithBlocks',
        base='VisionTransformer',
        arch='deit-tiny',
        blocks=[dict(type='nl_plugins.NonLocal2d', after='patch_embed.projection')],
    )
    model = build_model(cfg)
    model.init_weights()
    batch = toolbox_of(cfg).batch(model, (224, 224), 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    moved = []
    for _ in range(2):
        data = model.data_preprocessor(batch, training=True)
        optimizer.zero_grad()
        model(**data, mode='loss')['loss'].backward()
        optimizer.step()
        of_blocks = [p.grad for n, p in model.named_parameters() if 'conv_out' in n]
        moved.append(any(gradient.any() for gradient in of_blocks))
    assert moved == [False, True]


def test_pictures(image, tmp_path):
    cfg = load_config(str(CONFIG))
    checkpoint = tmp_path / 'model.pth'
    torch.save(dict(state_dict=build_model(cfg).state_dict()), checkpoint)
    model = load_model(str(CONFIG), str(checkpoint))
    visualizer = attention.build_visualizer(
        model.cfg, str(tmp_path), model.dataset_meta
    )
    sample = sample_from_file(model.cfg, image)
    attention.plot_attention(model, sample, visualizer, 'image')
    pictures = (tmp_path / 'vis_data/vis_image').glob('image_*_0.png')
    names = {path.stem[len('image_') : -len('_0')] for path in pictures}
    assert names == {'point0', 'point1', 'point2', 'point3', 'change'}
