"""Batches of the right form for any model of the toolboxes, without data."""
import torch
from mmengine.config import Config
from torch import nn

from ..loading import toolbox

#: Objects in every image of a detector's batch.
_OBJECTS = 10


def synthetic_batch(cfg: Config, model: nn.Module, shape: tuple[int, ...],
                    batch_size: int) -> dict:
    """Make what a data loader would give to a model.

    Args:
        cfg (Config): Config of a recognizer, segmentor or detector.
        model (nn.Module): What was built from it.
        shape (tuple[int, ...]): Frames (of video), height and width.
        batch_size (int): Samples.

    Returns:
        dict: For ``model.train_step`` and ``model.test_step``: noise as
        ``'inputs'``, and ``'data_samples'`` with annotations.
    """
    make = dict(mmdet=_images_with_objects, mmaction=_clips).get(
        toolbox(cfg), _images_with_labels)
    return make(cfg, model, shape, batch_size)


def _images_with_objects(cfg: Config, model: nn.Module, shape: tuple[int, ...],
                         batch_size: int) -> dict:
    from mmdet.testing import demo_mm_inputs
    batch = demo_mm_inputs(
        batch_size, (3, *shape), num_items=[_OBJECTS] * batch_size,
        with_mask=True, with_semantic=True)
    for sample in batch['data_samples']:
        # a class that every model has
        sample.gt_instances.labels.zero_()
        sample.gt_sem_seg.sem_seg.zero_()
        sample.ignored_instances = sample.ignored_instances[:0]
    return batch


def _images_with_labels(cfg: Config, model: nn.Module, shape: tuple[int, ...],
                        batch_size: int) -> dict:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), shape)
    return dict(
        inputs=list(_noise(batch_size, 3, *shape)),
        data_samples=[
            SegDataSample(
                metainfo=sizes,
                gt_sem_seg=PixelData(data=torch.zeros(1, *shape).long()))
            for _ in range(batch_size)
        ])


def _clips(cfg: Config, model: nn.Module, shape: tuple[int, ...],
           batch_size: int) -> dict:
    from mmaction.structures import ActionDataSample
    clips = _noise(batch_size, 1, 3, *shape)
    if type(model).__name__ == 'Recognizer2D':  # which takes frames
        clips = clips[:, 0].transpose(1, 2)
    return dict(
        inputs=list(clips),
        data_samples=[
            ActionDataSample().set_gt_label(0) for _ in range(batch_size)
        ])


def _noise(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        256, shape, dtype=torch.uint8, generator=generator)
