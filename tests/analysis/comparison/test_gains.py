"""Confidence of gains, against tables of Student's distribution."""

import math
import statistics

import pytest

from nl_plugins.analysis.comparison.gains import gain_over
from nl_plugins.analysis.comparison.runs import Metric, Run

METRIC = Metric('mIoU', 'mIoU')
#: Two-sided quantiles of 95 %, by the degrees of freedom.
T = {1: 12.7062, 2: 4.3027, 4: 2.7764}


def runs(values, seeds=None):
    return [
        Run([], [dict(iteration=1, mIoU=value)], seed=seed)
        for value, seed in zip(values, seeds or [None] * len(values))
    ]


def test_runs_with_the_same_seeds_are_paired():
    gain = gain_over(
        runs([53, 50, 54], [2, 0, 1]), runs([40, 44, 45], [0, 1, 2]), METRIC
    )
    differences = [10, 10, 8]
    width = T[2] * statistics.stdev(differences) / math.sqrt(3)
    mean = statistics.mean(differences)
    assert (gain.mean, gain.low, gain.high) == pytest.approx(
        (mean, mean - width, mean + width), rel=1e-4
    )
    assert gain.is_beyond_seeds
    assert (
        gain.describe(1) == f'+9.3 (95 %: {mean - width:+.1f} to {mean + width:+.1f})'
    )


@pytest.mark.parametrize('seeds', [None, [0, 1, 2], [4, 4, 5], [4, 5, None]])
def test_others_are_not(seeds):
    # equal variances and numbers: Welch's degrees of freedom are 2 (n - 1)
    one, other = [50, 52, 54], [40, 42, 44]
    gain = gain_over(runs(one, [4, 5, 6]), runs(other, seeds), METRIC)
    width = T[4] * math.sqrt(2 * 4 / 3)
    assert (gain.low, gain.high) == pytest.approx((10 - width, 10 + width), rel=1e-4)


def test_a_gain_within_the_seeds_is_none():
    gain = gain_over(runs([50, 54], [0, 1]), runs([49, 51], [0, 1]), METRIC)
    assert (gain.low, gain.high) == pytest.approx((2 - T[1], 2 + T[1]), rel=1e-4)
    assert not gain.is_beyond_seeds
    assert gain.describe(1).endswith('no difference beyond seeds')


def test_a_single_run_has_no_interval():
    gain = gain_over(runs([50], [0]), runs([49, 51], [0, 1]), METRIC)
    assert gain.mean == 0 and math.isnan(gain.low)
    assert gain.describe(2) == '+0.00'
    assert gain_over(runs([50]), [], METRIC) is None
