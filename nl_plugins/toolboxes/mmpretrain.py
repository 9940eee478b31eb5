"""Adapter of MMPreTrain."""

import os
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import nn

from ..errors import OptionError
from .base import (
    Metric,
    Toolbox,
    flip_pipeline,
    random_bytes,
    unwrap_datasets,
    visualization_hook,
)


class MMPreTrain(Toolbox):
    """Classification of images."""

    name = 'mmpretrain'
    distribution = 'mmpretrain'
    extra = 'cls'
    is_optional = True
    metrics = (Metric('top-1', 'accuracy/top1'),)

    def input_shape(self, cfg: Config) -> tuple[int, ...]:
        loader = cfg.get('test_dataloader') or cfg.train_dataloader
        dataset = unwrap_datasets(loader.dataset)[0]
        for transform in reversed(dataset.pipeline):
            size = transform.get('crop_size', transform.get('scale'))
            if isinstance(size, int):
                return size, size
            if size is not None:
                width, height = size
                return height, width
        raise KeyError('crop_size')

    def batch(
        self, model: nn.Module, shape: tuple[int, ...], batch_size: int
    ) -> dict[str, Any]:
        from mmpretrain.structures import DataSample

        return dict(
            inputs=list(random_bytes(batch_size, 3, *shape)),
            data_samples=[DataSample().set_gt_label(0) for _ in range(batch_size)],
        )

    def use_visualization(
        self, cfg: Config, show: bool, show_dir: str | None, wait_time: float
    ) -> None:
        hook = visualization_hook(cfg, 'VisualizationHook')
        hook.update(enable=True, interval=1, show=show, wait_time=wait_time)
        if show_dir is not None:
            hook.out_dir = os.path.abspath(show_dir)

    def use_tta(self, cfg: Config) -> None:
        if cfg.get('default_hooks', {}).get('visualization', {}).get('enable'):
            raise OptionError(
                '--show and --show-dir of MMPreTrain are without --tta: its hook '
                'takes one view of an image'
            )
        # The defaults of MMPreTrain's own tool.
        cfg.setdefault('tta_model', ConfigDict(type='AverageClsScoreTTA'))
        cfg.setdefault('tta_pipeline', flip_pipeline(cfg))
        super().use_tta(cfg)
