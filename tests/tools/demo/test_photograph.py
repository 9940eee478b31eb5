"""The first look at a block, on a photograph and without training."""

import cv2
import numpy as np
import torch
from demo import photograph
from torch import nn

from nl_plugins import NonLocal2d, insert


class Detector(nn.Module):
    """Like a detector: keyword arguments, nested outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 8, stride=8)

    def data_preprocessor(self, data):
        return dict(inputs=torch.stack(data['inputs']).float(), data_samples=None)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        assert mode == 'tensor'
        x = self.conv(inputs)
        return [x[:, :2]], (x[:, 2:], None)


def test_changes_of_a_block_are_counted():
    model = Detector()
    insert(model, [dict(type=NonLocal2d, after='conv')], torch.zeros(1, 3, 32, 32))
    numbers = 4 * 40 * 60
    changes = photograph.count_changes(Detector(), model)
    assert changes == f'0 of {numbers:,} numbers'
    nn.init.ones_(model.conv.non_local_block.conv_out.conv.bias)
    changes = photograph.count_changes(Detector(), model)
    assert changes == f'{numbers:,} of {numbers:,} numbers'


def test_a_new_block_changes_nothing_in_a_detector(tmp_path, capsys):
    path = tmp_path / 'new' / 'attention.png'
    lines = photograph.look(path)
    assert lines[0].startswith('a new block changes 0 of ')
    assert str(path) in lines[1]
    assert cv2.imread(str(path)).shape[1] == 1360  # three maps


def test_weights_are_those_of_non_local_means():
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    features = photograph.patches_of(image)
    assert features.shape == (1, 3 * 7 * 7 + 1, 8, 12)
    block = NonLocal2d(features.shape[1], mode='gaussian')
    found, _ = block.attention_weights(features, torch.tensor([[2, 3]]))
    # by the definition, in float64
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB).astype(np.float64)
    padded = np.pad(lab, ((3, 3), (3, 3), (0, 0)))
    rows = [padded[y : y + 7] for y in range(0, 32, 4)]
    patches = np.array([[row[:, x : x + 7] for x in range(0, 48, 4)] for row in rows])
    distances = ((patches - patches[2, 3]) ** 2).mean(axis=(2, 3, 4)) / patches.var()
    expected = np.exp(-12 * distances)
    expected /= expected.sum()
    assert abs(found[0, 0].numpy() - expected).max() < 1e-4 * expected.max()
