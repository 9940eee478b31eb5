"""Adapter of MMAction2."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from ..compat.mmaction import name_videos
from .base import Metric, Toolbox, random_bytes, unwrap_datasets


class MMAction(Toolbox):
    """Recognition of actions in videos.

    ``--show`` is not supported: the hook of MMAction2 1.2.0 calls its
    visualizer with an argument that the visualizer does not have.
    """

    name = 'mmaction'
    distribution = 'mmaction2'
    extra = 'video'
    metrics = (Metric('top-1', 'acc/top1', 100),)
    sizes = 'TxHxW'
    file_kind = 'a video'
    tensor_options = dict(stage='head')

    def register(self) -> None:
        super().register()
        name_videos()

    def input_shape(self, cfg: Config) -> tuple[int, ...]:
        loader = cfg.get('train_dataloader') or cfg.test_dataloader
        dataset = unwrap_datasets(loader.dataset)[0]
        sampling = next(t for t in dataset.pipeline if 'clip_len' in t)
        frames = max(sampling.clip_len, sampling.get('num_clips', 1))
        return frames, *_crop(dataset.pipeline)

    def batch(
        self, model: nn.Module, shape: tuple[int, ...], batch_size: int
    ) -> dict[str, Any]:
        from mmaction.structures import ActionDataSample

        # (clips, channels, frames, H, W), or (frames, channels, H, W) of a 2D
        # recognizer.
        clips = random_bytes(batch_size, 1, 3, *shape)
        if type(model).__name__ == 'Recognizer2D':
            clips = clips[:, 0].transpose(1, 2)
        return dict(
            inputs=list(clips),
            data_samples=[
                ActionDataSample().set_gt_label(0) for _ in range(batch_size)
            ],
        )

    def file_info(self, path: Path, metainfo: dict[str, Any]) -> dict[str, Any]:
        return dict(filename=str(path), label=-1, start_index=0, modality='RGB')


def _crop(pipeline: list[dict]) -> tuple[int, int]:
    """Height and width of the clips that a pipeline returns."""
    for transform in reversed(pipeline):
        width, height = transform.get('scale', (-1, -1))
        if height > 0 and width > 0:
            return height, width
        for key in 'crop_size', 'input_size', 'size':
            if isinstance(transform.get(key), int):
                return transform[key], transform[key]
    raise KeyError('size')
