"""Parameters and FLOPs of whole models, at the size of their input."""
from typing import Any, NamedTuple

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from .errors import OptionError


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
            channels. Defaults to None: the clips or crops of training, and
            800 x 1280 for detection.

    Returns:
        Complexity: What it costs.

    Raises:
        OptionError: If the config's input has another number of sizes.
    """
    default = _input_shape(cfg)
    shape = default if shape is None else shape
    if len(shape) != len(default):
        raise OptionError(
            f'the input of {cfg.filename} has {len(default)} sizes, such as '
            f'{"x".join(map(str, default))}, but got '
            f'{"x".join(map(str, shape))}')
    init_default_scope(cfg.default_scope)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    x = torch.zeros(1, 3, *shape)
    options = dict(mode='tensor')
    if cfg.default_scope == 'mmaction':
        options['stage'] = 'head'
        # clips (views) of one video, or the frames of a 2D recognizer
        x = x.unsqueeze(1)
        if cfg.model.type == 'Recognizer2D':
            x = x[:, 0].transpose(1, 2)
    if cfg.default_scope == 'mmdet':
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
    return Complexity(parameters, flops, tuple(shape))


class _Forward(nn.Module):
    """A model that runs with an image alone."""

    def __init__(self, model: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.options = model, options

    def forward(self, x: Tensor) -> Any:
        return self.model(x, **self.options)


def _input_shape(cfg: Config) -> tuple[int, ...]:
    if cfg.default_scope == 'mmaction':
        pipeline = cfg.train_dataloader.dataset.pipeline
        sampling = next(t for t in pipeline if 'clip_len' in t)
        crops = [t['scale'] for t in pipeline if t['type'] == 'Resize']
        frames = max(sampling.clip_len, sampling.num_clips)
        return frames, *(crops[-1] if crops else (224, 224))
    if cfg.default_scope == 'mmseg':
        return tuple(cfg.model.data_preprocessor.size)
    return 800, 1280
