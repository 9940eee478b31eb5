"""Results of training runs as a table and as curves.

Everything is read from the ``scalars.json`` that the runner writes.
"""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from terminaltables import GithubFlavoredMarkdownTable

from nl_plugins.analysis.comparison import runs
from nl_plugins.analysis.comparison.runs import Run, mean_and_spread
from nl_plugins.toolboxes import TOOLBOXES, Metric

DETECTION, SEGMENTATION, VIDEO = (
    TOOLBOXES[name].metrics for name in ('mmdet', 'mmseg', 'mmaction')
)


class Model(NamedTuple):
    """A model of the comparison: its name, size and runs, one per seed."""

    name: str
    parameters: int
    runs: Sequence[Run]

    def final(self, metric: Metric) -> list[float]:
        """A metric of the last evaluation of each run, in percent."""
        return [metric.factor * run.val[-1][metric.key] for run in self.runs]


def read_run(work_dir: str | Path) -> Run:
    """Read the latest training in a work directory.

    Args:
        work_dir (str | Path): The runner's work directory.

    Returns:
        Run: Its records.

    Raises:
        FileNotFoundError: If no training left records there.
        ValueError: If the latest one has not been evaluated.
    """
    run = runs.read_run(work_dir)
    if not run.val:
        raise ValueError(
            f'{work_dir} has {len(run.train)} training records '
            'and 0 evaluations, at least one of each is needed'
        )
    return run


def format_table(models: Iterable[Model], metrics: Sequence[Metric] = DETECTION) -> str:
    """Compare models by their metrics, parameters and seconds/iteration.

    Args:
        models (Iterable[Model]): The rows.
        metrics (Sequence[Metric]): What they are compared by. Defaults to
            ``DETECTION``.

    Returns:
        str: A table in Markdown that is also readable as it is. Metrics
        are those of the last evaluation; of several runs, mean and sample
        standard deviation.
    """
    rows = [['model', *(m.name for m in metrics), 'parameters', 's/iter']]
    for model in models:
        rows.append(
            [
                model.name,
                *(mean_and_spread(model.final(m), 1) for m in metrics),
                f'{model.parameters:,}',
                mean_and_spread([run.seconds_per_iteration for run in model.runs], 3),
            ]
        )
    return GithubFlavoredMarkdownTable(rows).table


def format_gains(models: Sequence[Model], metrics: Sequence[Metric] = DETECTION) -> str:
    """Say how many points each model is above the first.

    Args:
        models (Sequence[Model]): The baseline, then the others.
        metrics (Sequence[Metric]): What they are compared by. Defaults to
            ``DETECTION``.

    Returns:
        str: One line per model but the first, the mean over its runs.
    """
    baseline, *others = models
    lines = []
    for model in others:
        gains = (
            '{} {:+.1f}'.format(
                metric.name,
                statistics.mean(model.final(metric))
                - statistics.mean(baseline.final(metric)),
            )
            for metric in metrics
        )
        lines.append(f'{model.name}: {", ".join(gains)}')
    return '\n'.join(lines)


def draw_curves(
    models: Iterable[Model],
    path: str | Path,
    loss_key: str = 'loss_cls',
    metric: Metric = DETECTION[-1],
) -> None:
    """Draw a loss and a metric over the iterations.

    Args:
        models (Iterable[Model]): One colour each, one line per run.
        path (str | Path): PNG file to write.
        loss_key (str): Key of the loss. Defaults to ``'loss_cls'``, the
            classification loss of a detector.
        metric (Metric): Defaults to the mask AP.
    """
    figure = Figure(figsize=(10, 3.6), layout='constrained')
    loss, metric_axes = figure.subplots(1, 2)
    for number, model in enumerate(models):
        for run in model.runs:
            # one entry per model in the legend
            style = dict(
                color=f'C{number}', label=model.name if run is model.runs[0] else None
            )
            loss.plot(*_series(run.train, loss_key), **style)
            metric_axes.plot(
                *_series(run.val, metric.key, metric.factor), 'o-', **style
            )
    loss.set(xlabel='iteration', ylabel=loss_key.replace('_', ' '), yscale='log')
    metric_axes.set(xlabel='iteration', ylabel=metric.name, ylim=(0, 100))
    for axes in (loss, metric_axes):
        axes.grid(alpha=0.3)
    metric_axes.legend(loc='lower right')
    figure.savefig(path, dpi=120)


def _series(
    records: Sequence[dict], key: str, factor: float = 1
) -> tuple[list[int], list[float]]:
    return (
        [record['iteration'] for record in records],
        [factor * record[key] for record in records],
    )
