"""Whole models beside each other."""

import pytest

from nl_plugins.analysis.benchmark.models import compare_models

pytestmark = pytest.mark.slow

CONFIGS = [
    'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmseg::nonlocal_net/nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'configs/nonlocal_net/nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024.py',
]


def test_models_with_the_same_parameters_have_the_same_output():
    table = compare_models(CONFIGS, (64, 96), 'cpu').splitlines()[2:]
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in table]
    assert [row[0] for row in rows] == CONFIGS
    assert rows[0][3] == '+0 MB' and rows[0][4] == rows[1][4] == ''
    assert float(rows[2][4].removeprefix('differs by ')) < 1e-4


def test_a_model_that_fails_is_a_row():
    table = compare_models([CONFIGS[0]], (64,), 'cpu')
    assert '| fails: ' in table
