"""Time and memory of whole models, side by side."""

import logging
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from ...engine.config import build_model
from ...toolboxes import toolbox_of
from ..complexity import input_shape
from ..measuring import (
    MeasurementError,
    in_a_process,
    memory_returned,
    peak_memory,
    time_in_turns,
    use_device,
)
from ..random_parameters import sample_parameters
from .variants import Variant

PHASES = ('inference', 'training')


@dataclass(frozen=True)
class Cost:
    """What one inference or training step takes.

    Attributes:
        seconds (tuple[float, ...]): Time in each turn.
        bytes (float): Largest memory beyond what the process held before
            the model was built: weights, activations and, in training,
            gradients and the optimizer's state. On the CPU that of the
            process, as Linux counts it.
        error (str): Why it could not be measured, ``''`` if it could.
    """

    seconds: tuple[float, ...] = ()
    bytes: float = math.nan
    error: str = ''

    @property
    def median(self) -> float:
        """Median time in seconds, nan without any."""
        return statistics.median(self.seconds) if self.seconds else math.nan


@dataclass(frozen=True)
class Setting:
    """How models are measured.

    Attributes:
        shape (tuple[int, ...], optional): Sizes of the input after its
            channels. None is each config's own.
        device (str): Where to run.
        batch_size (int): Samples of a training step; inference has one.
        repeats (int): Timed turns.
    """

    shape: tuple[int, ...] | None = None
    device: str = 'cpu'
    batch_size: int = 2
    repeats: int = 5


def measure_costs(
    variants: Sequence[Variant],
    phase: str,
    setting: Setting,
    tell: Callable[[str], None] = lambda step: None,
) -> list[Cost]:
    """Measure models with inputs of noise and random weights.

    An inference is the model's whole ``test_step`` with its
    post-processing, a training step the whole ``train_step`` with the
    optimizer of the config, at a learning rate of 0. No dataset is read.
    The parameters are those of
    :func:`nl_plugins.analysis.random_parameters.sample_parameters`.

    Args:
        variants (Sequence[Variant]): The models.
        phase (str): ``'inference'`` or ``'training'``.
        setting (Setting): How to measure.
        tell (Callable): Called at the start of each step, one for the memory
            of each model and one for all times. Defaults to a function that
            does nothing.

    Returns:
        list[Cost]: One of each model, in their order.
    """
    costs = []
    # without their runs, which processes do not need
    variants = [replace(variant, runs=[]) for variant in variants]
    for variant in variants:
        tell(f'memory of {phase}: {variant.name}')
        try:
            with memory_returned():
                needed = in_a_process(_memory, variant, phase, setting)
            costs.append(Cost(bytes=needed))
        except MeasurementError as error:
            costs.append(Cost(error=str(error)))
    able = [number for number, cost in enumerate(costs) if not cost.error]
    tell(f'time of {phase}: {len(able)} models in turns')
    try:
        chosen = [variants[number] for number in able]
        turns = in_a_process(_times, chosen, phase, setting) if able else []
    except MeasurementError as error:
        return [cost if cost.error else Cost(error=str(error)) for cost in costs]
    for number, seconds in zip(able, turns):
        costs[number] = replace(costs[number], seconds=tuple(seconds))
    return costs


def _load(variant: Variant) -> Config:
    """The config, with its toolbox imported, which takes memory too."""
    # One line for each parameter from the optimizer's constructor.
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    warnings.simplefilter('ignore')
    cfg = variant.load()
    init_default_scope(toolbox_of(cfg).name)
    return cfg


def _build_step(cfg: Config, phase: str, setting: Setting) -> Callable[[], None]:
    """What is measured, ready to run, of the config loaded last."""
    shape = input_shape(cfg, setting.shape)
    if 'size' in (cfg.model.get('data_preprocessor') or {}):
        # MMSegmentation pads what is smaller.
        cfg.model.data_preprocessor.size = shape
    model: BaseModel = build_model(cfg)
    sample_parameters(model)
    model.to(setting.device)
    training = phase == 'training'
    batch = toolbox_of(cfg).batch(model, shape, setting.batch_size if training else 1)
    optimizer = None
    if training:
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        for group in optimizer.param_groups:
            group['lr'] = 0.0  # every step has the same weights

    def step() -> None:
        set_random_seed(0)  # samplers, dropout
        # not once: ResNet3d.train() freezes layers
        model.train(training)
        if training:
            model.train_step(batch, optimizer)
        else:
            with torch.no_grad():
                model.test_step(batch)

    return step


def _memory(variant: Variant, phase: str, setting: Setting) -> int:
    """Bytes of two steps: the optimizer's state comes with the first."""
    use_device(setting.device)
    cfg = _load(variant)
    before = peak_memory(setting.device)
    step = _build_step(cfg, phase, setting)
    step()
    step()
    return peak_memory(setting.device) - before


def _times(
    variants: Sequence[Variant], phase: str, setting: Setting
) -> list[list[float]]:
    """Seconds of the turns of each."""
    use_device(setting.device)
    steps = [_build_step(_load(variant), phase, setting) for variant in variants]
    return time_in_turns(steps, setting.repeats, math.inf)
