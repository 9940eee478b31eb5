"""MMAction2."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from ..compat.mmaction import name_videos
from .base import Metric, Toolbox, dataset_with_pipeline, noise


class MMAction(Toolbox):
    """Classes of videos.

    ``--show`` is refused: the hook of MMAction2 1.2.0 passes its visualizer
    an argument that this does not know.
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
        dataset = dataset_with_pipeline(
            (cfg.get('train_dataloader') or cfg.test_dataloader).dataset
        )
        sampling = next(t for t in dataset.pipeline if 'clip_len' in t)
        frames = max(sampling.clip_len, sampling.get('num_clips', 1))
        return frames, *_crop(dataset.pipeline)

    def batch(
        self, model: nn.Module, shape: tuple[int, ...], batch_size: int
    ) -> dict[str, Any]:
        from mmaction.structures import ActionDataSample

        # clips (views) of one video, or the frames of a 2D recognizer
        clips = noise(batch_size, 1, 3, *shape)
        if type(model).__name__ == 'Recognizer2D':
            clips = clips[:, 0].transpose(1, 2)
        return dict(
            inputs=list(clips),
            data_samples=[
                ActionDataSample().set_gt_label(0) for _ in range(batch_size)
            ],
        )

    def file_info(self, path: Path) -> dict[str, Any]:
        return dict(filename=str(path), label=-1, start_index=0, modality='RGB')


def _crop(pipeline: list[dict]) -> tuple[int, int]:
    """Height and width of what a pipeline of videos returns."""
    for transform in reversed(pipeline):
        width, height = transform.get('scale', (-1, -1))
        if height > 0 and width > 0:
            return height, width
        for key in 'crop_size', 'input_size', 'size':
            if isinstance(transform.get(key), int):
                return transform[key], transform[key]
    raise KeyError('size')
