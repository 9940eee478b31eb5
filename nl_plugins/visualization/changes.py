"""What a block changes in a prediction."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.structures import BaseDataElement


def describe_change(
    with_block: BaseDataElement,
    without: BaseDataElement,
    classes: Sequence[str] | None = None,
) -> list[str]:
    """Say what a block changes in a prediction.

    Args:
        with_block (BaseDataElement): The prediction, in the toolbox's form.
        without (BaseDataElement): The one with the block switched off.
        classes (Sequence[str], optional): Names of the classes. Defaults to
            None, their numbers.

    Returns:
        list[str]: Lines about the detections, keypoints, pixels or classes.
    """
    for name, field in (('pred_sem_seg', 'data'), ('pred_panoptic_seg', 'sem_seg')):
        if name in with_block:
            one, other = (
                result.get(name).get(field) for result in (with_block, without)
            )
            changed = (one != other).float().mean()
            return [f'{100 * changed:.1f} % of the pixels change their class']
    if 'pred_instances' in with_block and 'keypoints' in with_block.pred_instances:
        one, other = (result.pred_instances for result in (with_block, without))
        moved = np.linalg.norm(one.keypoints - other.keypoints, axis=-1)
        change = (one.keypoint_scores - other.keypoint_scores).mean()
        return [
            f'keypoints move by {moved.mean():.1f} px, at most {moved.max():.1f} px; '
            f'their scores change by {change:+.3f} in the mean'
        ]
    if 'pred_instances' in with_block:
        lines = []
        for threshold in (0.3, 0.5, 0.7):
            one, other = (
                int((result.pred_instances.scores >= threshold).sum())
                for result in (with_block, without)
            )
            lines.append(
                f'detections with a score of at least {threshold}: '
                f'{one} with the block, {other} without'
            )
        return lines
    return [
        f'class {name}: {one:.3f} with the block, {other:.3f} without'
        for name, one, other in zip(*scores_of_classes(with_block, without, classes))
    ]


def scores_of_classes(
    with_block: BaseDataElement,
    without: BaseDataElement,
    classes: Sequence[str] | None = None,
) -> tuple[list[str], list[float], list[float]]:
    """The five classes with the highest scores of a classification.

    Args:
        with_block (BaseDataElement): The prediction, in the toolbox's form.
        without (BaseDataElement): The one with the block switched off.
        classes (Sequence[str], optional): Names of the classes. Defaults to
            None, their numbers.

    Returns:
        tuple[list[str], list[float], list[float]]: Their names, and their
        scores with and without the block.
    """
    scores, others = with_block.pred_score, without.pred_score
    best = scores.topk(min(5, len(scores))).indices
    names = [str(classes[i] if classes else i) for i in best.tolist()]
    return names, scores[best].tolist(), others[best].tolist()


def change_of_probabilities(
    with_block: BaseDataElement, without: BaseDataElement
) -> np.ndarray:
    """How much a block changes what a segmentor predicts of each pixel.

    Args:
        with_block (BaseDataElement): The prediction, in the toolbox's form.
        without (BaseDataElement): The one with the block switched off.

    Returns:
        np.ndarray: Half the sum of the absolute differences of the
        probabilities of all classes, ``(H, W)``, 0 to 1.
    """
    one, other = (
        logits.softmax(dim=0) if len(logits) > 1 else logits.sigmoid()
        for logits in (with_block.seg_logits.data, without.seg_logits.data)
    )
    return ((one - other).abs().sum(dim=0) / 2).cpu().numpy()


def name_all_classes(meta: dict | None, *results: BaseDataElement) -> dict:
    """Complete the names and colours of a dataset that names too few classes.

    The head of a model may predict more classes than its dataset names.

    Args:
        meta (dict, optional): ``'classes'`` and ``'palette'``, or None.
        results (BaseDataElement): Predictions.

    Returns:
        dict: ``meta`` with a name (``'class 3'``) and a colour for every
        predicted class, as far as it has names and colours at all.
    """
    meta = dict(meta or {})
    predicted = [
        labels
        for result in results
        for labels in (
            result.get('pred_instances', {}).get('labels'),
            result.get('pred_sem_seg', {}).get('data'),
            torch.arange(len(result.get('pred_score', ()))),
        )
        if labels is not None and labels.numel()
    ]
    number = 1 + max((int(labels.max()) for labels in predicted), default=-1)
    if meta.get('classes'):
        more = range(len(meta['classes']), number)
        meta['classes'] = (*meta['classes'], *(f'class {i}' for i in more))
    if isinstance(meta.get('palette'), (list, tuple)):
        colours = np.random.default_rng(0).integers(0, 256, (number, 3))
        meta['palette'] = [
            *meta['palette'],
            *map(tuple, colours[len(meta['palette']) :].tolist()),
        ]
    return meta
