"""Adapter of MMDetection."""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import nn

from ..errors import OptionError
from .base import (
    Metric,
    Toolbox,
    flip_pipeline,
    unwrap_datasets,
    visualization_hook,
)

#: Number of objects in every image of a synthetic batch.
_OBJECTS = 10


class MMDetection(Toolbox):
    """Detection, instance and panoptic segmentation of images."""

    name = 'mmdet'
    distribution = 'mmdet'
    extra = 'det'
    metrics = (
        Metric('box AP', 'coco/bbox_mAP', 100),
        Metric('mask AP', 'coco/segm_mAP', 100),
    )
    dump_metric = 'mmdet.DumpDetResults'

    def register(self) -> None:
        super().register()
        from mmdet.utils import setup_cache_size_limit_of_dynamo

        # MMDetection's tools call it: torch.compile recompiles less often.
        setup_cache_size_limit_of_dynamo()

    def input_shape(self, cfg: Config) -> tuple[int, ...]:
        loader = cfg.get('test_dataloader') or cfg.train_dataloader
        dataset = unwrap_datasets(loader.dataset)[0]
        width, height = next(
            t.scale
            for t in dataset.pipeline
            if 'Resize' in str(t.type) and isinstance(t.get('scale'), tuple)
        )
        if (width, height) == (1333, 800):  # limits; a mean image of COCO is 4:3
            return 800, 1280
        return height, width

    def batch(
        self, model: nn.Module, shape: tuple[int, ...], batch_size: int
    ) -> dict[str, Any]:
        from mmdet.testing import demo_mm_inputs

        batch = demo_mm_inputs(
            batch_size,
            (3, *shape),
            num_items=[_OBJECTS] * batch_size,
            with_mask=True,
            with_semantic=True,
        )
        for sample in batch['data_samples']:
            # Every model has class 0.
            sample.gt_instances.labels.zero_()
            sample.gt_sem_seg.sem_seg.zero_()
            sample.ignored_instances = sample.ignored_instances[:0]
            # The preprocessor sets these, but a model may run without it.
            sample.set_metainfo(dict(pad_shape=shape, batch_input_shape=shape))
        return batch

    def file_info(self, path: Path, metainfo: dict[str, Any]) -> dict[str, Any]:
        return super().file_info(path, metainfo) | dict(instances=[])

    def use_visualization(
        self, cfg: Config, show: bool, show_dir: str | None, wait_time: float
    ) -> None:
        hook = visualization_hook(cfg, 'DetVisualizationHook')
        hook.update(draw=True, show=show, wait_time=wait_time)
        if show_dir is not None:
            # The hook resolves a relative folder in the work directory.
            hook.test_out_dir = os.path.abspath(show_dir)

    def use_tta(self, cfg: Config) -> None:
        if any(
            part.get('mask_head') for part in (cfg.model, cfg.model.get('roi_head', {}))
        ):
            raise OptionError(
                '--tta of MMDetection is for boxes: it cannot merge masks'
            )
        # The defaults of MMDetection's own tool.
        cfg.setdefault(
            'tta_model',
            ConfigDict(
                type='DetTTAModel',
                tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
            ),
        )
        pack = dict(
            type='PackDetInputs',
            meta_keys=(
                'img_id',
                'img_path',
                'ori_shape',
                'img_shape',
                'scale_factor',
                'flip',
                'flip_direction',
            ),
        )
        cfg.setdefault('tta_pipeline', flip_pipeline(cfg, pack))
        super().use_tta(cfg)
