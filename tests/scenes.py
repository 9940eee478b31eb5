"""What the tests of the generated datasets share."""

import numpy as np
import torch
from demo import scene


def files(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob('*')
        if path.is_file()
    }


def lamp_columns(image):
    """Columns that hold a strong colour; all else in an image is grey."""
    image = image.astype(np.int64)
    coloured = image.max(axis=2) - image.min(axis=2) > 100
    return np.flatnonzero(coloured.sum(axis=0) > 10)


def columns_seen(model):
    """Columns of the image on which one column of features depends.

    Args:
        model (nn.Module): Takes an image, returns a list of one map. Its
            parameters that are zero become random: zero residual branches
            and blocks would hide what reaches how far.

    Returns:
        tuple: These columns, the first one of the features' column, and the
        stride.
    """
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    image = torch.randn(1, 3, scene.HEIGHT, 2 * scene.WIDTH)
    image.requires_grad_()
    (features,) = model.eval()(image)
    column = features.shape[3] // 2
    features[..., column].square().sum().backward()
    columns = image.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    stride = image.shape[3] // features.shape[3]
    return columns, column * stride, stride


def stripes(patch):
    """'vertical' or 'horizontal', by the direction of the changes."""
    bright = patch.max(axis=2).astype(float)
    across, down = (np.abs(np.diff(bright, axis=d)).mean() for d in (1, 0))
    return 'vertical' if across > down else 'horizontal'
