"""Gains over a baseline, and how certain they are."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from .runs import Metric, Run


@dataclass(frozen=True)
class Gain:
    """A difference of means, with its confidence interval.

    Attributes:
        mean (float): Of the runs, less that of the baseline's.
        low (float): Lower end of the interval of 95 %, nan without spread.
        high (float): Its upper end.
    """

    mean: float
    low: float = math.nan
    high: float = math.nan

    @property
    def is_beyond_seeds(self) -> bool:
        """Whether the interval does not contain 0; True without one."""
        return not self.low <= 0 <= self.high

    def describe(self, digits: int) -> str:
        """Format the gain, such as ``'+1.2 (95 %: +0.4 to +2.0)'``."""
        text = f'{self.mean:+.{digits}f}'
        if math.isnan(self.low):
            return text
        text += f' (95 %: {self.low:+.{digits}f} to {self.high:+.{digits}f})'
        return text if self.is_beyond_seeds else f'{text}, no difference beyond seeds'


def gain_over(
    runs: Sequence[Run], baseline: Sequence[Run], metric: Metric
) -> Gain | None:
    """Compare the last evaluations of some runs with those of a baseline.

    Runs with the same seeds are paired: the interval is that of Student's
    t-test on their differences. Otherwise it is that of Welch's t-test.

    Args:
        runs (Sequence[Run]): Repetitions of a training.
        baseline (Sequence[Run]): Repetitions of the baseline's.
        metric (Metric): What is compared.

    Returns:
        Gain, optional: The gain, without an interval where one side has a
        single run; None where one side has no value.
    """
    sides = [
        [(run.seed, found[-1]) for run in side if (found := run.values(metric))]
        for side in (runs, baseline)
    ]
    if not all(sides):
        return None
    values = [[value for _, value in side] for side in sides]
    mean = statistics.mean(values[0]) - statistics.mean(values[1])
    if min(map(len, values)) < 2 or not math.isfinite(mean):
        return Gain(mean)
    by_seed = [
        {seed: value for seed, value in side if seed is not None} for side in sides
    ]
    # No seed occurs twice on a side, and both sides have the same seeds.
    if by_seed[0].keys() == by_seed[1].keys() and all(
        len(seeds) == len(side) for seeds, side in zip(by_seed, sides)
    ):
        test = stats.ttest_rel(
            *([side[seed] for seed in by_seed[0]] for side in by_seed)
        )
    else:
        test = stats.ttest_ind(*values, equal_var=False)
    return Gain(mean, *test.confidence_interval(0.95))
