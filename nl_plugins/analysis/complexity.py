"""Parameters and FLOPs of whole models, at the size of their input."""

from dataclasses import dataclass
from typing import Any

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from torch import Tensor, nn

from ..engine.config import build_model
from ..errors import OptionError
from ..toolboxes import toolbox_of
from .random_parameters import sample_parameters


@dataclass(frozen=True)
class Complexity:
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


def measure_complexity(cfg: Config, shape: tuple[int, ...] | None = None) -> Complexity:
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
    shape = input_shape(cfg, shape)
    model = build_model(cfg)
    sample_parameters(model)
    model.eval()
    options = example_input(cfg, model, shape)
    x = options.pop('inputs')
    with torch.no_grad():
        analyzer = FlopAnalyzer(_Forward(model, options), x)
        # What works on single elements is not counted; losses do not run.
        flops = (
            analyzer.unsupported_ops_warnings(False)
            .uncalled_modules_warnings(False)
            .total()
        )
    parameters = sum(p.numel() for p in model.parameters())
    return Complexity(parameters, flops, shape)


def example_input(
    cfg: Config, model: nn.Module, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Make the arguments of a model's ``forward`` with which all layers run.

    Args:
        cfg (Config): Config of the model.
        model (nn.Module): The model.
        shape (tuple[int, ...]): Frames (of video), height and width.

    Returns:
        dict: ``'inputs'``, one sample of zeros, and the other arguments.
    """
    toolbox = toolbox_of(cfg)
    batch = toolbox.batch(model, shape, 1)
    return dict(
        inputs=torch.zeros_like(torch.stack(batch['inputs']), dtype=torch.float32),
        data_samples=batch['data_samples'],
        mode='tensor',
        **toolbox.tensor_options,
    )


class _Forward(nn.Module):
    """A model that runs with an image alone."""

    def __init__(self, model: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.options = model, options

    def forward(self, x: Tensor) -> Any:
        return self.model(x, **self.options)


def input_shape(cfg: Config, shape: tuple[int, ...] | None = None) -> tuple[int, ...]:
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
    toolbox = toolbox_of(cfg)
    if shape is None:
        try:
            return toolbox.input_shape(cfg)
        except (AttributeError, LookupError, StopIteration, TypeError) as error:
            raise OptionError(
                f'{cfg.filename} does not say the size of its input: give it as --shape'
            ) from error
    if len(shape) != toolbox.sizes.count('x') + 1:
        raise OptionError(
            f'the input of {cfg.filename} is {toolbox.sizes}, '
            f'but got {"x".join(map(str, shape))}'
        )
    return tuple(shape)
