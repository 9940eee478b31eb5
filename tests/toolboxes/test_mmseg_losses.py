"""The loss of hard pixels against its definition, and in a head."""

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

WEIGHTS = [0.5, 1.0, 1.5]


def build(**kwargs):
    init_default_scope('mmseg')
    return MODELS.build(dict(type='nl_plugins.OHEMCrossEntropyLoss', **kwargs))


def sample(scale=3.0):
    torch.manual_seed(0)
    label = torch.randint(0, 3, (2, 5, 6))
    label[0, :2] = 255
    return scale * torch.randn(2, 3, 5, 6, dtype=torch.double), label


def expected(logits, label, thresh, min_kept, weights):
    """Pixel by pixel."""
    pixels = []
    chances = logits.softmax(1).numpy()
    for b, i, j in np.ndindex(*label.shape):
        c = int(label[b, i, j])
        if c != 255:
            p = chances[b, c, i, j]
            pixels.append((p, -weights[c] * np.log(p)))
    pixels.sort()
    last = pixels[min(min_kept * len(label), len(pixels) - 1)][0]
    return np.mean([loss for p, loss in pixels if p < max(last, thresh)])


@pytest.mark.parametrize('weights', [None, WEIGHTS])
@pytest.mark.parametrize('min_kept', [3, 20, 1000])
def test_loss_is_the_mean_over_the_hard_pixels(min_kept, weights):
    logits, label = sample()
    loss = build(thresh=0.3, min_kept=min_kept, class_weight=weights, loss_weight=0.5)
    value = loss(logits, label, weight=None, ignore_index=255)
    reference = expected(logits, label, 0.3, min_kept, weights or [1.0] * 3)
    assert value.item() == pytest.approx(0.5 * reference)


def test_without_a_threshold_it_is_the_weighted_mean():
    logits, label = sample()
    value = build(thresh=None, class_weight=WEIGHTS)(logits, label, ignore_index=255)
    torch.testing.assert_close(
        value,
        torch.nn.functional.cross_entropy(
            logits, label, logits.new_tensor(WEIGHTS), ignore_index=255
        ),
    )


def test_labels_without_a_pixel_that_counts_give_a_loss_of_zero():
    logits, label = sample()
    logits.requires_grad_()
    for thresh in 0.7, None:
        loss = build(thresh=thresh)(logits, torch.full_like(label, 255))
        loss.backward()
        assert loss == 0
        assert not logits.grad.any()


def test_a_head_of_mmseg_trains_with_it():
    init_default_scope('mmseg')
    loss = dict(type='nl_plugins.OHEMCrossEntropyLoss', class_weight=WEIGHTS)
    head = MODELS.build(
        dict(
            type='mmseg.FCNHead',
            in_channels=8,
            channels=4,
            num_classes=3,
            loss_decode=loss,
        )
    )
    _, label = sample()
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=one[None].clone())) for one in label
    ]
    losses = head.loss([torch.randn(2, 8, 5, 6)], samples, {})
    losses['loss_ce'].backward()
    assert head.conv_seg.weight.grad.any()
