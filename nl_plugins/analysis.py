"""Parameters and FLOPs of whole models, at the size of their input."""
from typing import Any, NamedTuple

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from .errors import OptionError
from .loading import inner_dataset, toolbox
from .weights import draw_weights


class Complexity(NamedTuple):
    """What a model costs.

    Attributes:
        parameters (int): Their number.
        flops (int): Of one forward without post-processing, one
            multiplication with its addition counting as one.
        shape (tuple[int, ...]): Of the input: frames (of video), height and
            width.
    """
    parameters: int
    flops: int
    shape: tuple[int, ...]


def measure_complexity(cfg: Config,
                       shape: tuple[int, ...] | None = None) -> Complexity:
    """Count what a model of the toolboxes costs.

    Args:
        cfg (Config): Config of a recognizer, segmentor or detector.
        shape (tuple[int, ...], optional): Sizes of the input after its
            channels. Defaults to None: the clips or crops of training, for
            detection what images are resized to.

    Returns:
        Complexity: What it costs.

    Raises:
        OptionError: If the config's input has another number of sizes, or
            the config does not say what it is.
    """
    scope = toolbox(cfg)
    shape = input_shape(cfg, shape)
    init_default_scope(scope)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    draw_weights(model)
    model.eval()
    x = torch.zeros(1, 3, *shape)
    options = dict(mode='tensor')
    if scope == 'mmaction':
        options['stage'] = 'head'
        # clips (views) of one video, or the frames of a 2D recognizer
        x = x.unsqueeze(1)
        if type(model).__name__ == 'Recognizer2D':
            x = x[:, 0].transpose(1, 2)
    if scope == 'mmdet':
        from mmdet.structures import DetDataSample
        sizes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
        sample = DetDataSample(
            metainfo=dict.fromkeys(sizes, shape)
            | dict(img_id=0, scale_factor=(1., 1.)))
        options['data_samples'] = [sample]
    with torch.no_grad():
        analyzer = FlopAnalyzer(_Forward(model, options), x)
        # What works on single elements is not counted; losses do not run.
        flops = analyzer.unsupported_ops_warnings(
            False).uncalled_modules_warnings(False).total()
    parameters = sum(p.numel() for p in model.parameters())
    return Complexity(parameters, flops, shape)


class _Forward(nn.Module):
    """A model that runs with an image alone."""

    def __init__(self, model: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.options = model, options

    def forward(self, x: Tensor) -> Any:
        return self.model(x, **self.options)


def input_shape(cfg: Config,
                shape: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The size of a model's input.

    Args:
        cfg (Config): Config of a recognizer, segmentor or detector.
        shape (tuple[int, ...], optional): What the user wants. Defaults to
            None: what the model is trained on, or tested if there is no
            training.

    Returns:
        tuple[int, ...]: Frames (of video), height and width.

    Raises:
        OptionError: If the config's input has another number of sizes, or
            the config does not say what it is.
    """
    scope = toolbox(cfg)
    if shape is None:
        return _own_shape(cfg, scope)
    sizes = 'TxHxW' if scope == 'mmaction' else 'HxW'
    if len(shape) != sizes.count('x') + 1:
        raise OptionError(f'the input of {cfg.filename} is {sizes}, but got '
                          f'{"x".join(map(str, shape))}')
    return tuple(shape)


def _own_shape(cfg: Config, scope: str | None) -> tuple[int, ...]:
    try:
        if scope == 'mmaction':
            dataset = inner_dataset(
                (cfg.get('train_dataloader') or cfg.test_dataloader).dataset)
            sampling = next(t for t in dataset.pipeline if 'clip_len' in t)
            frames = max(sampling.clip_len, sampling.get('num_clips', 1))
            return frames, *_crop(dataset.pipeline)
        if scope == 'mmseg':
            return tuple(cfg.model.data_preprocessor.size)
        return _image_size(cfg)
    except (AttributeError, KeyError, StopIteration, TypeError) as error:
        raise OptionError(
            f'{cfg.filename} does not say the size of its input: give it as '
            '--shape') from error


def _image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the images that a detector is tested on."""
    dataset = inner_dataset(
        (cfg.get('test_dataloader') or cfg.train_dataloader).dataset)
    width, height = next(
        t.scale for t in dataset.pipeline
        if 'Resize' in str(t.type) and isinstance(t.get('scale'), tuple))
    if (width, height) == (1333, 800):  # of images of 4:3, in COCO's mean
        return 800, 1280
    return height, width


def _crop(pipeline: list[dict]) -> tuple[int, int]:
    """Height and width of what a pipeline of videos returns."""
    for transform in reversed(pipeline):
        width, height = transform.get('scale', (-1, -1))
        if height > 0 and width > 0:
            return height, width
        for key in 'crop_size', 'input_size', 'size':
            if isinstance(transform.get(key), int):
                return transform[key], transform[key]
    raise KeyError('size')
