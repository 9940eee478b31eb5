"""A first look at a block, on a photograph and without training.

The photograph is by Rachel Michetti (Pikolo Espresso Bar), CC0, as in
scikit-image.
"""

from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from nl_plugins import NonLocal2d
from nl_plugins.engine import build_model, load_config
from nl_plugins.visualization.figures import DPI, AttentionFigure, Panel, plot_panels
from nl_plugins.visualization.samples import sample_from_file

PHOTOGRAPH = Path(__file__).parents[2] / 'docs/assets/coffee.jpg'
BASELINE = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
WITH_BLOCK = 'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py'
#: Sides of the model's input: the shorter one for the photograph.
SHAPE = '320x480'

#: Sides of patches and the steps between them in pixels, and how fast weights
#: fall with the mean squared distance of patches, in variances of the image.
_PATCH, _STRIDE, _SHARPNESS = 7, 4, 12.0
_QUERIES = {'saucer': (104, 200), 'porcelain': (240, 48), 'wood': (440, 200)}


def look(path: Path) -> list[str]:
    """Check that a new block is an identity, and plot what one attends to.

    Args:
        path (Path): PNG file to write.

    Returns:
        list[str]: What was seen, a line each.
    """
    baseline, model = (
        build_model(load_config(c)).eval() for c in (BASELINE, WITH_BLOCK)
    )
    model.load_state_dict(baseline.state_dict(), strict=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_attention_of_patches().savefig(path, dpi=DPI)
    changes = count_changes(baseline, model)
    return [
        f'a new block changes {changes} that Mask R-CNN puts out',
        f'what a Gaussian block attends to, by colours and textures alone: {path}',
    ]


def count_changes(baseline: BaseModel, model: BaseModel) -> str:
    """Compare the outputs of two detectors on the photograph, bit for bit.

    Args:
        baseline (BaseModel): One detector.
        model (BaseModel): The other one.

    Returns:
        str: Such as ``'0 of 23,456 numbers'``.
    """
    cfg = load_config(BASELINE)
    cfg.test_dataloader.dataset.pipeline[1].scale = tuple(map(int, SHAPE.split('x')))
    sample = sample_from_file(cfg, PHOTOGRAPH)
    outputs = []
    for detector in (baseline, model):
        data = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
        with torch.no_grad():
            found = detector(**detector.data_preprocessor(data), mode='tensor')
        outputs.append(
            [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        )
    changed = sum(int((one != other).sum()) for one, other in zip(*outputs))
    return f'{changed:,} of {sum(one.numel() for one in outputs[0]):,} numbers'


def plot_attention_of_patches() -> AttentionFigure:
    """Plot the attention of a Gaussian block on patches of the photograph.

    Its features are the colours of a patch, so that its attention is the
    weight of non-local means (Buades et al., CVPR 2005, equation 2), from
    which the blocks have their name. Nothing is learnt.

    Returns:
        AttentionFigure: A row of maps, one for each of some queries.
    """
    image = mmcv.imread(PHOTOGRAPH)
    patches = patches_of(image)
    block = NonLocal2d(patches.shape[1], mode='gaussian')
    positions = [(y // _STRIDE, x // _STRIDE) for x, y in _QUERIES.values()]
    maps, _ = block.attention_weights(patches, torch.tensor(positions))
    panels = []
    for (name, point), weights in zip(_QUERIES.items(), maps[0]):
        weights = (weights / weights.mean()).numpy()
        peak = float(weights.max())
        large = cv2.resize(weights, image.shape[1::-1])
        title = f'{name}, peak {peak:.3g} × mean'
        panels.append(Panel(title, image[..., ::-1], large, peak=peak, cross=point))
    return plot_panels([panels])


def patches_of(image: np.ndarray) -> Tensor:
    """Patches as features whose dot product falls with their distance.

    Args:
        image (np.ndarray): BGR, ``(H, W, 3)``, uint8.

    Returns:
        Tensor: ``(1, C, H / 4, W / 4)``. A channel is added that gives all of
        them one length ``r``, so that ``x . y = r^2 - |x - y|^2 / 2``.
    """
    lab = torch.from_numpy(mmcv.imconvert(image, 'bgr', 'lab')).permute(2, 0, 1)[None]
    height, width = (side // _STRIDE for side in image.shape[:2])
    patches = functional.unfold(
        lab.float(), _PATCH, padding=_PATCH // 2, stride=_STRIDE
    ).unflatten(2, (height, width))
    patches = (patches - patches.mean()) / patches.std()
    patches *= (2 * _SHARPNESS / patches.shape[1]) ** 0.5
    squares = patches.square().sum(dim=1, keepdim=True)
    return torch.cat([patches, (squares.max() - squares).sqrt()], dim=1)
