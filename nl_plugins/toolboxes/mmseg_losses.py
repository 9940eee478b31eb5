"""The loss of the DNL paper's segmentation code, for MMSegmentation."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class OHEMCrossEntropyLoss(nn.Module):
    """Cross-entropy of the pixels that are hard to classify.

    Hard is a pixel whose class has a probability below ``thresh``. If there
    are too few of them, it is one of the ``min_kept`` pixels per image with
    the lowest probability. The loss is the mean over the hard pixels, as in
    the segmentation code of `Disentangled Non-Local Neural Networks
    <https://arxiv.org/abs/2006.06668>`_. MMSegmentation 1.2 has the parts,
    but not this loss: behind its ``OHEMPixelSampler`` the mean is over all
    pixels, its ``CrossEntropyLoss`` with class weights raises an
    ``IndexError`` if pixels are ignored, and its ``OhemCrossEntropy`` does not
    take the arguments that an ``FCNHead`` gives.

    Args:
        thresh (float, optional): Probability below which a pixel is hard.
            Defaults to 0.7. With None all pixels count, and the mean is
            weighted by class as in ``torch.nn.CrossEntropyLoss``.
        min_kept (int): Number of pixels per image that are always kept.
            Defaults to 100000.
        class_weight (Sequence[float], optional): Factor of each class.
            Defaults to None.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        loss_name (str): Name in the log. Defaults to ``'loss_ce'``.
    """

    def __init__(
        self,
        thresh: float | None = 0.7,
        min_kept: int = 100000,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__()
        self.thresh = thresh
        self.min_kept = min_kept
        self.class_weight = class_weight
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, logits: Tensor, label: Tensor, ignore_index: int = 255, **_: Any
    ) -> Tensor:
        """Compute the loss.

        Args:
            logits (Tensor): Shape ``(B, classes, H, W)``.
            label (Tensor): Classes of the pixels, ``(B, H, W)``.
            ignore_index (int): Label of pixels that do not count. Defaults
                to 255.

        Returns:
            Tensor: A scalar, 0 if no pixel counts.
        """
        weight = None
        if self.class_weight is not None:
            weight = logits.new_tensor(self.class_weight)
        valid = label != ignore_index
        if not valid.any():
            return logits.sum() * 0.0
        if self.thresh is None:
            loss = F.cross_entropy(logits, label, weight, ignore_index=ignore_index)
            return self.loss_weight * loss
        losses = F.cross_entropy(
            logits, label, weight, ignore_index=ignore_index, reduction='none'
        )[valid]
        classes = label.masked_fill(~valid, 0)[:, None]
        chance = logits.detach().softmax(dim=1).gather(1, classes)[:, 0][valid]
        kept = min(self.min_kept * len(label), chance.numel() - 1)
        thresh = chance.sort().values[kept].clamp(min=self.thresh)
        hard = losses[chance < thresh]
        # Where all have one probability, none is below it.
        return self.loss_weight * (hard.mean() if hard.numel() else hard.sum())
