"""Attention during training."""

import logging
import time
from collections.abc import Sequence
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook, IterTimerHook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..errors import OptionError
from ..registry import HOOKS


@HOOKS.register_module()
class AttentionVisualizationHook(Hook):
    """Plot what a block attends to, at regular intervals.

    The pictures of :func:`nl_plugins.visualization.attention.plot_attention`,
    of a few samples of the validation, go to all backends of the runner's visualizer
    (files below ``vis_data/vis_image``, TensorBoard).

    .. code-block:: python

        custom_hooks = [
            dict(type='nl_plugins.AttentionVisualizationHook', interval=500)]

    Args:
        interval (int): Iterations between the pictures. Defaults to 1000.
        samples (Sequence[int]): Numbers of samples in the dataset of the
            validation. Defaults to ``(0, 1)``.
        points (Sequence[tuple[float, float]]): Query pixels, column and
            row. Defaults to none, those of the tool
            ``visualize_attention.py``.
        block (str, optional): Name of a block in the model, such as
            ``'backbone.layer3.5.non_local_block'``. Defaults to None, the
            last one that sees the whole image or clip.
        scale (str): What the colours span, ``'max'``, ``'uniform'`` or
            ``'shared'``, as in :func:`nl_plugins.visualization.figures.
            plot_panels`. ``'uniform'`` is the same at every step. Defaults to
            ``'max'``.

    Raises:
        OptionError: If an argument is not of these types, or at the start
            of the training if there is no such scale or block, no validation, or no
            such sample in it. What turns out later, such as a pixel outside
            of an image, is a warning in the log.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 1000,
        samples: Sequence[int] = (0, 1),
        points: Sequence[tuple[float, float]] = (),
        block: str | None = None,
        scale: str = 'max',
    ) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise OptionError(
                f'interval must be an integer of at least 1, but got {interval!r}'
            )
        if not isinstance(samples, Sequence) or not all(
            isinstance(sample, int) for sample in samples
        ):
            raise OptionError(
                f'samples must be a list of integers, but got {samples!r}'
            )
        if not isinstance(points, Sequence) or not all(
            isinstance(point, Sequence) and len(point) == 2 for point in points
        ):
            raise OptionError(
                f'points must be a list of (column, row), but got {points!r}'
            )
        self.interval = interval
        self.samples = samples
        self.points = points
        self.block = block
        self.scale = scale

    def before_train(self, runner: Runner) -> None:
        from .figures import check_scale
        from .records import choose_block

        check_scale(self.scale)
        if runner.val_loop is None:
            raise OptionError(
                'AttentionVisualizationHook plots samples of '
                'the validation, and the config has none'
            )
        choose_block(_unwrapped(runner), self.block)
        number = len(runner.val_dataloader.dataset)
        for sample in self.samples:
            if not 0 <= sample < number:
                raise OptionError(
                    f'AttentionVisualizationHook: {sample} is no sample of '
                    f'the validation, they are 0 to {number - 1}'
                )

    @master_only
    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        if not self.every_n_train_iters(runner, self.interval):
            return
        from .attention import plot_attention

        start = time.time()
        model = _unwrapped(runner)
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            for sample in self.samples:
                lines = plot_attention(
                    model,
                    runner.val_dataloader.dataset[sample],
                    runner.visualizer,
                    f'attention_{sample}',
                    self.points,
                    self.block,
                    runner.iter + 1,
                    self.scale,
                )
                print_log(
                    f'attention of sample {sample}: {"; ".join(lines)}',
                    logger='current',
                )
        except OptionError as error:
            print_log(
                f'AttentionVisualizationHook: {error}',
                logger='current',
                level=logging.WARNING,
            )
        finally:
            # not train(): what the model has frozen stays so
            for module, training in modes:
                module.training = training
        for hook in runner.hooks:
            # The time of the next iteration counts from here.
            if isinstance(hook, IterTimerHook):
                hook.t += time.time() - start


def _unwrapped(runner: Runner) -> nn.Module:
    """The model without what distributes it."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model
