"""Adapter of MMSegmentation."""

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmengine.utils import mkdir_or_exist
from torch import nn

from ..errors import OptionError
from .base import Metric, Toolbox, random_bytes, visualization_hook


class MMSegmentation(Toolbox):
    """Semantic segmentation of images."""

    name = 'mmseg'
    distribution = 'mmsegmentation'
    extra = 'seg'
    metrics = (Metric('mIoU', 'mIoU'),)

    def input_shape(self, cfg: Config) -> tuple[int, ...]:
        return tuple(cfg.model.data_preprocessor.size)

    def batch(
        self, model: nn.Module, shape: tuple[int, ...], batch_size: int
    ) -> dict[str, Any]:
        from mmseg.structures import SegDataSample

        sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), shape)
        return dict(
            inputs=list(random_bytes(batch_size, 3, *shape)),
            data_samples=[
                SegDataSample(
                    metainfo=sizes,
                    gt_sem_seg=PixelData(data=torch.zeros(1, *shape).long()),
                )
                for _ in range(batch_size)
            ],
        )

    def config_without_blocks(self, cfg: Config) -> str | None:
        head = cfg.model.get('decode_head', {}).get('type', '')
        if not str(head).endswith('NLHead'):
            return None
        # Both heads are FCN heads with a block between their convolutions.
        _, _, name = Path(cfg.filename).name.partition('_')
        return f'mmseg::fcn/fcn_{name}'

    def file_info(self, path: Path, metainfo: dict[str, Any]) -> dict[str, Any]:
        return super().file_info(path, metainfo) | dict(
            reduce_zero_label=False, seg_fields=[]
        )

    def use_visualization(
        self, cfg: Config, show: bool, show_dir: str | None, wait_time: float
    ) -> None:
        hook = visualization_hook(cfg, 'SegVisualizationHook')
        hook.update(draw=True, show=show, wait_time=wait_time, interval=1)
        if show_dir is not None:
            cfg.visualizer.save_dir = os.path.abspath(show_dir)

    def check_output_path(self, out: str) -> None:
        if out.endswith(('.pkl', '.pickle')):
            raise OptionError(
                '--out of a segmentation test is a folder, which gets a PNG '
                f"label map per image, but got '{out}'"
            )

    def write_predictions(self, runner: Runner, out: str) -> None:
        writers = [
            metric
            for metric in runner.test_evaluator.metrics
            if hasattr(metric, 'output_dir')
        ]
        if not writers:
            raise OptionError(
                '--out needs a metric of MMSegmentation that writes label '
                "maps, such as test_evaluator.type='IoUMetric'"
            )
        mkdir_or_exist(out)
        for metric in writers:
            metric.output_dir = out
