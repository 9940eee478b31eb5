"""Adapter of MMPose."""

import os
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config
from torch import nn

from .base import Metric, Toolbox, unwrap_datasets, visualization_hook


class MMPose(Toolbox):
    """Estimation of keypoints in images, of one person at a time (top-down)."""

    name = 'mmpose'
    distribution = 'mmpose'
    extra = 'pose'
    is_optional = True
    metrics = (Metric('keypoint AP', 'coco/AP', 100),)

    def input_shape(self, cfg: Config) -> tuple[int, ...]:
        loader = cfg.get('test_dataloader') or cfg.train_dataloader
        dataset = unwrap_datasets(loader.dataset)[0]
        width, height = next(
            t.input_size for t in dataset.pipeline if 'input_size' in t
        )
        return height, width

    def batch(
        self, model: nn.Module, shape: tuple[int, ...], batch_size: int
    ) -> dict[str, Any]:
        from mmpose.testing import get_packed_inputs

        head: Any = model.head
        codec = head.decoder
        # RegressionHead calls it otherwise
        keypoints = getattr(head, 'out_channels', None) or head.num_joints
        height, width = shape
        options: dict[str, Any] = dict(img_shape=shape, input_size=(width, height))
        if heatmap := getattr(codec, 'heatmap_size', None):
            options['heatmap_size'] = [
                out * size // trained
                for out, size, trained in zip(
                    heatmap, (width, height), codec.input_size
                )
            ]
        if ratio := getattr(codec, 'simcc_split_ratio', None):
            options['simcc_split_ratio'] = ratio
        return get_packed_inputs(batch_size, num_keypoints=keypoints, **options)

    def file_info(self, path: Path, metainfo: dict[str, Any]) -> dict[str, Any]:
        height, width = mmcv.imread(str(path)).shape[:2]
        return super().file_info(path, metainfo) | dict(
            metainfo,
            bbox=np.array([[0, 0, width, height]], np.float32),
            bbox_score=np.ones(1, np.float32),
        )

    def use_visualization(
        self, cfg: Config, show: bool, show_dir: str | None, wait_time: float
    ) -> None:
        hook = visualization_hook(cfg, 'PoseVisualizationHook')
        hook.update(enable=True, show=show, wait_time=wait_time)
        if show_dir is not None:
            # The hook resolves a relative folder in the work directory.
            hook.out_dir = os.path.abspath(show_dir)
