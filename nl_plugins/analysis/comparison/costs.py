"""Time and memory of whole models, side by side.

Memory is measured in a process of its own for each model, time for all of
them in turns in one process, as in :mod:`..benchmark.measure`.
"""

import logging
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from ...engine.config import build_model, load_config
from ...errors import first_line
from ...toolboxes import toolbox_of
from ..benchmark.measure import (
    in_a_process,
    peak_memory,
    time_in_turns,
    trimming,
    use_device,
)
from ..complexity import input_shape
from ..weights import draw_weights

PHASES = ('inference', 'training')


class Cost(NamedTuple):
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


class Setting(NamedTuple):
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


def measure_costs(configs: Sequence[str], phase: str, setting: Setting) -> list[Cost]:
    """Measure models with inputs of noise and random weights.

    An inference is the model's whole ``test_step`` with its
    post-processing, a training step the whole ``train_step`` with the
    optimizer of the config, at a learning rate of 0. No data set is read.
    The weights are those of :func:`nl_plugins.analysis.weights.draw_weights`.

    Args:
        configs (Sequence[str]): Paths or names of configs.
        phase (str): ``'inference'`` or ``'training'``.
        setting (Setting): How to measure.

    Returns:
        list[Cost]: One of each config, in their order.
    """
    memory = []
    for config in configs:
        _tell(f'memory of {phase}: {config}')
        with trimming():
            memory.append(in_a_process(_serve_memory, config, phase, setting))
    able = [c for c, found in zip(configs, memory) if not isinstance(found, str)]
    _tell(f'time of {phase}: {len(able)} models in turns')
    seconds = in_a_process(_serve_times, able, phase, setting) if able else []
    if isinstance(seconds, str):
        return [
            Cost(error=found if isinstance(found, str) else seconds) for found in memory
        ]
    seconds = iter(seconds)
    return [
        Cost(error=found)
        if isinstance(found, str)
        else Cost(tuple(next(seconds)), found)
        for found in memory
    ]


def _tell(message: str) -> None:
    print(f'   {message}', file=sys.stderr, flush=True)


def _load(config: str) -> Config:
    """The config, with its toolbox imported, which takes memory too."""
    # One line for each parameter from the optimizer's constructor.
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    warnings.simplefilter('ignore')
    cfg = load_config(config)
    init_default_scope(toolbox_of(cfg).name)
    return cfg


def _build_step(cfg: Config, phase: str, setting: Setting) -> Callable[[], None]:
    """What is measured, ready to run, of the config loaded last."""
    shape = input_shape(cfg, setting.shape)
    if 'size' in (cfg.model.get('data_preprocessor') or {}):
        # MMSegmentation pads what is smaller.
        cfg.model.data_preprocessor.size = shape
    model = build_model(cfg)
    draw_weights(model)
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
        if torch.device(setting.device).type == 'cuda':
            torch.cuda.synchronize()

    return step


def _serve_memory(config: str, phase: str, setting: Setting, pipe: Connection) -> None:
    """Send the memory of two steps: the optimizer's state comes first."""
    try:
        use_device(setting.device)
        cfg = _load(config)
        before = peak_memory(setting.device)
        step = _build_step(cfg, phase, setting)
        step()
        step()
        pipe.send(peak_memory(setting.device) - before)
    except Exception as error:  # whatever a model may raise
        pipe.send(first_line(error))


def _serve_times(
    configs: Sequence[str], phase: str, setting: Setting, pipe: Connection
) -> None:
    """Send the times of the turns of each."""
    try:
        use_device(setting.device)
        steps = [_build_step(_load(config), phase, setting) for config in configs]
        pipe.send(time_in_turns(steps, setting.repeats, math.inf))
    except Exception as error:
        pipe.send(first_line(error))
