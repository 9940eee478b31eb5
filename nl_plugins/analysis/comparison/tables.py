"""A comparison as tables and as CSV."""

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..tables import Table, write_csv
from .costs import PHASES
from .fairness import unfair_differences
from .gains import gain_over
from .models import Comparison, Group, Model
from .runs import (
    KNOWN_METRICS,
    Metric,
    Run,
    best,
    describe_difference,
    mean_and_spread,
    model_differences,
)


def tables(comparison: Comparison, group: Group) -> list[Table]:
    """Put what is known of the models of a baseline into tables.

    Args:
        comparison (Comparison): The whole.
        group (Group): One of its groups.

    Returns:
        list[Table]: Size, what each step takes, what was trained and what
        was published, as far as there is anything.
    """
    found = [_sizes(group)]
    if any(model.costs for model in group.models):
        found.append(_costs(comparison, group))
    if comparison.searched:
        found.append(_results(comparison, group))
    if group.published:
        found.append(_published(group))
    return found


def write_records(comparison: Comparison, folder: str | Path) -> None:
    """Write the figures as CSV: s, bytes, numbers.

    Args:
        comparison (Comparison): What was found.
        folder (str | Path): Gets ``models.csv``, one row for each model, and
            ``runs.csv``, one for each run and metric.
    """
    models = [(group, model) for group in comparison.groups for model in group.models]
    head = ['baseline', 'config', 'model', 'blocks', 'input', 'parameters']
    head += ['flops', 'error']
    for phase in PHASES:
        for name in ('seconds', 'seconds_min', 'seconds_max', 'bytes', 'error'):
            head.append(f'{phase}_{name}')
    write_csv(
        Path(folder, 'models.csv'),
        head,
        [_model_record(group.models[0].config, model) for group, model in models],
    )
    head = ['config', 'model', 'work_dir', 'seed', 'state', 'iterations']
    head += ['seconds_per_iteration', 'training_seconds', 'metric', 'last', 'best']
    write_csv(
        Path(folder, 'runs.csv'),
        head,
        [
            record
            for _, model in models
            for run in model.all_runs
            for record in _run_records(model, run)
        ],
    )


def _model_record(baseline: str, model: Model) -> dict[str, Any]:
    record: dict[str, Any] = dict(
        baseline=baseline,
        config=model.config,
        model=model.name,
        blocks=model.blocks,
        error=model.error,
    )
    if model.complexity:
        record['input'] = 'x'.join(map(str, model.complexity.shape))
        record['parameters'] = model.complexity.parameters
        record['flops'] = model.complexity.flops
    for phase, cost in model.costs.items():
        record[f'{phase}_error'] = cost.error
        if cost.seconds:
            record[f'{phase}_seconds'] = cost.median
            record[f'{phase}_seconds_min'] = min(cost.seconds)
            record[f'{phase}_seconds_max'] = max(cost.seconds)
            record[f'{phase}_bytes'] = cost.bytes
    return record


def _run_records(model: Model, run: Run) -> Iterator[dict[str, Any]]:
    """A record for each metric, one for a run without any."""
    record = dict(
        config=model.config,
        model=model.name,
        work_dir=run.work_dir,
        seed=run.seed,
        state=run.state,
    )
    if run.train:
        record['iterations'] = run.train[-1]['iteration']
        record['seconds_per_iteration'] = run.seconds_per_iteration
        record['training_seconds'] = run.training_seconds
    metrics = run.metrics()
    for metric in metrics:
        values = run.values(metric)
        yield record | dict(metric=metric.name, last=values[-1], best=best(values))
    if not metrics:
        yield record


def shared_metrics(group: Group) -> list[Metric]:
    """The metrics that any run of a group has."""
    return list(
        dict.fromkeys(
            metric
            for model in group.models
            for run in model.all_runs
            for metric in run.metrics()
        )
    )


def _sizes(group: Group) -> Table:
    first = group.models[0].complexity
    rows = []
    for model in group.models:
        row = [model.name, model.blocks or 'none']
        found = model.complexity
        if found is None:
            rows.append([*row, f'fails: {model.error}', '', ''])
            continue
        rows.append(
            [
                *row,
                ' x '.join(map(str, found.shape)),
                f'{found.parameters / 1e6:.2f} M'
                + _ratio(found.parameters, first.parameters if first else None),
                f'{found.flops / 1e9:.4g} G'
                + _ratio(found.flops, first.flops if first else None),
            ]
        )
    return Table(
        'Size',
        ['model', 'blocks', 'input', 'parameters', 'FLOPs'],
        rows,
        'In brackets the ratio to the baseline, here and below. A '
        'multiplication with its addition counts as one FLOP.'
        + ''.join(_other_models(group)),
    )


def _other_models(group: Group) -> Iterator[str]:
    """Sentences about models that are not those of their config files."""
    for model in group.models:
        run = next((run for run in model.all_runs if run.model), None)
        if run is not None and not model.label.endswith(')'):  # that names it
            differences = model_differences(run.settings, model.settings)
            if named := describe_difference(differences, {}):
                yield f' Here and below {model.name} is the model of its runs: {named}.'


def _costs(comparison: Comparison, group: Group) -> Table:
    setting = comparison.setting
    head, rows = ['model'], [[model.name] for model in group.models]
    for phase in PHASES:
        head += [f'{phase} time', f'{phase} spread', f'{phase} memory']
        first = group.models[0].costs[phase]
        for model, row in zip(group.models, rows):
            cost = model.costs[phase]
            if cost.error:
                row += [f'fails: {cost.error}', '', '']
                continue
            row += [
                _seconds(cost.median) + _ratio(cost.median, first.median),
                f'{_seconds(min(cost.seconds))} to {_seconds(max(cost.seconds))}',
                f'{cost.bytes / 2**20:.0f} MB' + _ratio(cost.bytes, first.bytes),
            ]
    return Table(
        'Time and memory',
        head,
        rows,
        f'Measured side by side on {setting.device}: median of '
        f'{setting.repeats} turn{"s" if setting.repeats > 1 else ""}, '
        'smallest to largest; inference with batch 1, training steps with '
        f'batch {setting.batch_size}; noise as input, '
        'random weights, the same of the same layers. Memory: weights, '
        "activations and, in training, gradients and the optimizer's state.",
    )


def _results(comparison: Comparison, group: Group) -> Table:
    metrics = shared_metrics(group)
    head = ['model', 'runs', 'length']
    for metric in metrics:
        head += [
            f'{metric.name}, last',
            f'gain in {metric.name}',
            f'{metric.name}, best',
        ]
    head += ['s/iteration', 'training', 'remark']
    # Of each model of the baseline's config the first complete trainings.
    baselines: list[list[Run]] = []
    for model in group.models:
        if model.config == group.models[0].config:
            baselines += [runs for runs in model.runs if not runs[0].state][:1]
    rows: list[list[str]] = []
    warnings: list[str] = []
    for model in group.models:
        if not model.runs:
            rows.append(
                [
                    model.name,
                    '0',
                    *[''] * (len(head) - 3),
                    f'no run below {", ".join(comparison.searched)}',
                ]
            )
        for runs in model.runs:
            # An incomplete training has no gain.
            other: list[Run] = []
            if not runs[0].state and not any(runs is found for found in baselines):
                other = min(
                    baselines,
                    key=lambda found: len(unfair_differences(runs[0], found[0])),
                    default=[],
                )
            unfair = unfair_differences(runs[0], other[0]) if other else []
            if unfair:
                warnings.append(
                    f'the gain of {model.name} ({len(warnings) + 1}) is not of its '
                    f'blocks alone: {"; ".join(unfair)}'
                )
            row = [model.name, str(len(runs)), runs[0].length]
            for metric in metrics:
                mark = f' ({len(warnings)})' if unfair else ''
                row += _reached(metric, runs, other, mark)
            remarks = [runs[0].state]
            if runs[0].settings and model.settings:
                remarks.append(describe_difference(runs[0].settings, model.settings))
            times = [run.seconds_per_iteration for run in runs if run.train]
            total = [run.training_seconds for run in runs if run.train]
            rows.append(
                [
                    *row,
                    mean_and_spread(times, 3) if times else '',
                    _hours(statistics.mean(total)) if total else '',
                    '; '.join(filter(None, remarks)),
                ]
            )
    return Table(
        'Trained',
        head,
        rows,
        'Mean and sample standard deviation over runs that differ in their '
        'seed alone; remark: what differs from the config file; gain: of the '
        "mean of the last evaluations over the baseline's, with its confidence "
        'interval over the seeds (paired where both have the same); training: time '
        "of the iterations by the runner's own clock, without evaluations.",
        warnings,
    )


def _reached(
    metric: Metric, runs: list[Run], baseline: list[Run], mark: str
) -> tuple[str, str, str]:
    """Cells of a metric: last, gain over the baseline, best."""
    values = [found for run in runs if (found := run.values(metric))]
    if not values:
        return '', '', ''
    digits = 1 if metric.key in KNOWN_METRICS else 3
    gain = gain_over(runs, baseline, metric)
    return (
        mean_and_spread([found[-1] for found in values], digits),
        gain.describe(digits) + mark if gain else '',
        mean_and_spread([best(found) for found in values], digits),
    )


def _published(group: Group) -> Table:
    baseline = group.models[0]
    config = Run([], [], settings=baseline.settings)
    warnings = []
    complete = [runs[0] for runs in baseline.runs if not runs[0].state]
    differences = [unfair_differences(run, config, 'config') for run in complete]
    if differences and all(differences):
        warnings.append(
            'these figures are of another training than the runs above: '
            + '; '.join(differences[0])
        )
    return Table(
        'Published by upstream for the baseline',
        ['model', 'dataset', 'task', 'metric', 'value'],
        [
            [result.model, result.dataset, result.task, name, str(value)]
            for result in group.published
            for name, value in result.metrics.items()
        ],
        "From the installed toolbox's metafile.",
        warnings,
    )


def _ratio(value: float, other: float | None) -> str:
    """How often another value is in one, in brackets."""
    if not other or math.isnan(other):
        return ''
    return f' ({value / other:.2f}x)'


def _seconds(value: float) -> str:
    if value < 0.9995:
        return f'{1e3 * value:.3g} ms'
    return f'{value:.3g} s' if value < 999.5 else f'{value:.0f} s'


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f'{minutes // 60} h {minutes % 60:02d} min'
        if (minutes >= 60)
        else f'{seconds / 60:.1f} min'
    )
