"""Label maps of several segmentors side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import mmcv
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, init_default_scope

from ..errors import OptionError
from .records import run
from .samples import sample_from_file


def dataset_of(model: BaseModel) -> BaseDataset:
    """The dataset that a model is tested on.

    Args:
        model (BaseModel): Segmentor with its config as ``cfg``.

    Returns:
        BaseDataset: ``test_dataloader.dataset`` of the model's config.
    """
    init_default_scope(model.cfg.default_scope)
    return DATASETS.build(model.cfg.test_dataloader.dataset)


def check_samples(dataset: BaseDataset, samples: Sequence[int]) -> None:
    """Check that a dataset has some images.

    Args:
        dataset (BaseDataset): The dataset.
        samples (Sequence[int]): Numbers of images.

    Raises:
        OptionError: If it has no such image.
    """
    for sample in samples:
        if not 0 <= sample < len(dataset):
            raise OptionError(
                f'{sample} is no image of {dataset.data_root}: they are 0 to '
                f'{len(dataset) - 1}'
            )


def plot_predictions(
    models: Mapping[str, BaseModel], samples: Sequence[int], path: str | Path
) -> None:
    """Plot images, their ground truth and what each model predicts.

    Args:
        models (Mapping[str, BaseModel]): Segmentors with
            their configs as ``cfg``, by name, all of the same classes.
        samples (Sequence[int]): Rows of the picture: numbers of images in
            the :func:`dataset_of` of the first model. What its
            annotations ignore is black.
        path (str | Path): PNG file to write.

    Raises:
        OptionError: If a model has another number of classes, or the dataset
            has no such image or no labels.
    """
    dataset = dataset_of(next(iter(models.values())))
    classes = list(dataset.metainfo['classes'])
    for name, model in models.items():
        if model.decode_head.num_classes != len(classes):
            raise OptionError(
                f'{name} must predict the {len(classes)} classes of the '
                f'dataset, but it has {model.decode_head.num_classes}'
            )
    check_samples(dataset, samples)
    # 255, the label of no class, stays black
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = dataset.metainfo['palette']

    rows, occurring = [], set()
    for sample in samples:
        truth = dataset[sample]['data_samples']
        if 'gt_sem_seg' not in truth:
            raise OptionError(
                f'{dataset.data_root} has no label map of {truth.img_path}'
            )
        maps = {'ground truth': truth.gt_sem_seg.data[0].numpy()}
        for name, model in models.items():
            predicted = run(model, sample_from_file(model.cfg, truth.img_path))
            maps[name] = predicted.pred_sem_seg.data[0].cpu().numpy()
        for labels in maps.values():
            occurring.update(np.unique(labels).tolist())
        image = mmcv.imread(truth.img_path, channel_order='rgb')
        rows.append(
            [('input', image), *((name, palette[m]) for name, m in maps.items())]
        )

    columns = len(rows[0])
    height, width = rows[0][0][1].shape[:2]
    panel = 3.2
    figure = Figure(
        figsize=(panel * columns, (panel * height / width + 0.2) * len(rows) + 0.4),
        layout='constrained',
    )
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for (title, _), axes in zip(rows[0], grid[0]):
        axes.set_title(title, fontsize=9)
    for panels, line in zip(rows, grid):
        for (_, pixels), axes in zip(panels, line):
            axes.imshow(pixels)
            axes.set_axis_off()
    figure.legend(
        handles=[
            Patch(color=palette[i] / 255, label=name)
            for i, name in enumerate(classes)
            if i in occurring
        ],
        loc='outside lower center',
        ncols=8,
        fontsize=8,
    )
    figure.savefig(path, dpi=120)
