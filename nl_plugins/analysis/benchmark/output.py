"""Measurements as tables, as CSV and as a plot."""

import math
from dataclasses import fields
from math import prod
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..tables import Table, write_csv
from .measure import Case, Result

Results = dict[Case, dict[str, Result]]

_HEAD = (
    'block',
    'input',
    'type',
    '',
    'upstream',
    'nl_plugins',
    'ratio',
    'floor',
    'nl_plugins / floor',
    'upstream',
    'nl_plugins',
    'ratio',
)


def to_tables(results: Results) -> list[Table]:
    """Put comparisons into tables.

    Args:
        results (Results): What :func:`compare` gave for each case.

    Returns:
        list[Table]: Time with the ratio upstream / nl_plugins, the time of a
        matrix product with as many multiplications, and memory; with what
        failed and why as the remark. Where there are several sizes, a second
        table has the exponents of N.
    """
    rows, remarks = [], []
    for case, by_name in results.items():
        theirs, ours, floor = by_name.values()
        rows.append(
            [
                case.block.replace('_', ' '),
                _input(case),
                case.dtype,
                case.phase,
                _seconds(theirs) + ('*' if theirs.note else ''),
                _seconds(ours),
                _ratio(theirs.seconds, ours.seconds),
                _seconds(floor),
                _ratio(ours.seconds, floor.seconds, 2),
                _megabytes(theirs),
                _megabytes(ours),
                _ratio(theirs.bytes, ours.bytes),
            ]
        )
        for name, result in by_name.items():
            where = f'{name}, {case.block} {_input(case)}'
            if result.error:
                remarks.append(f'fails: {where}: {result.error}')
            elif result.note:
                remarks.append(f'\\* {where}: {result.note}')
    slopes = [
        [title, name, *('' if math.isnan(s) else f'{s:.2f}' for s in slopes)]
        for (title, name), points in _series(results).items()
        if name != 'matmul' and not all(map(math.isnan, slopes := _slopes(points)))
    ]
    remark = '\n\n'.join(dict.fromkeys(remarks))
    tables = [Table('Time and memory of an iteration', _HEAD, rows, remark)]
    if slopes:
        tables.append(Table('Exponents of N', ('', '', 'time', 'memory'), slopes))
    return tables


def write_records(results: Results, path: str | Path) -> None:
    """Write a CSV row for each case and implementation.

    Args:
        results (Results): What :func:`compare` gave for each case.
        path (str | Path): File to write; times in s, memory in bytes.
    """
    case_head, result_head = ([f.name for f in fields(c)] for c in (Case, Result))
    write_csv(
        path,
        [*case_head, 'positions', 'implementation', *result_head],
        [
            vars(case)
            | dict(
                size=case.size_text,
                train=case.phase,
                positions=prod(case.size),
                implementation=name,
            )
            | vars(result)
            for case, by_name in results.items()
            for name, result in by_name.items()
        ],
    )


def plot(results: Results, path: str | Path) -> None:
    """Time and memory against the number of positions, on log-log axes.

    Args:
        results (Results): What :func:`compare` gave for each case.
        path (str | Path): PNG to write.
    """
    series = _series(results)
    names = list(dict.fromkeys(key[0] for key in series))
    with matplotlib.rc_context({'font.size': 9}):
        figure = Figure((3.2 * len(names) + 0.8, 6.4), layout='constrained')
        axes = figure.subplots(2, len(names), squeeze=False, sharex=True, sharey='row')
        for column, name in enumerate(names):
            for key, points in series.items():
                if key[0] != name:
                    continue
                for row, (field, unit) in enumerate((('seconds', 1), ('bytes', 2**20))):
                    xs, ys = _points(points, field)
                    if not xs or not any(ys):
                        continue
                    slope = _slope(xs, ys)
                    label = (
                        key[1]
                        if math.isnan(slope)
                        else (f'{key[1]}, slope {slope:.2f}')
                    )
                    axes[row, column].loglog(
                        xs,
                        [y / unit for y in ys],
                        dict(upstream='s--', nl_plugins='o-', matmul='k:')[key[1]],
                        label=label,
                    )
            axes[0, column].set_title(name)
            axes[1, column].set_xlabel('positions N')
            for row in (0, 1):
                axes[row, column].grid(alpha=0.3, which='both')
                axes[row, column].legend(fontsize=7)
        axes[0, 0].set_ylabel('time of an iteration / s')
        axes[1, 0].set_ylabel('peak extra memory / MB')
        figure.savefig(path, dpi=110)


def _series(results: Results) -> dict[tuple[str, str], list]:
    """Positions and results, by title and implementation."""
    series: dict[tuple[str, str], list] = {}
    for case, by_name in sorted(results.items(), key=lambda item: prod(item[0].size)):
        title = f'{case.block.replace("_", " ")}, {case.dtype}, {case.phase}'
        for name, result in by_name.items():
            series.setdefault((title, name), []).append((prod(case.size), result))
    return series


def _points(points: list, field: str) -> tuple[list[int], list[float]]:
    """Positions and values of what ran."""
    found = [(n, getattr(result, field)) for n, result in points if not result.error]
    return [n for n, _ in found], [value for _, value in found]


def _slopes(points: list) -> list[float]:
    """Exponents of the time and of the memory."""
    return [_slope(*_points(points, field)) for field in ('seconds', 'bytes')]


def _slope(xs: list[int], ys: list[float]) -> float:
    """Exponent of a power law, by least squares on the logarithms."""
    if len(set(xs)) < 2 or not all(ys):
        return math.nan
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def _input(case: Case) -> str:
    sizes = (case.channels, *case.size)
    if case.batch > 1:
        sizes = (case.batch, *sizes)
    return ' x '.join(map(str, sizes)) + (', pooled' if case.sub_sample else '')


def _seconds(result: Result) -> str:
    if result.error:
        return 'fails'
    digits = 3 if result.seconds >= 0.1 else 5
    return f'{result.seconds:.{digits}f} s'


def _megabytes(result: Result) -> str:
    return 'fails' if result.error else f'{result.bytes / 2**20:.0f} MB'


def _ratio(value: float, other: float, digits: int = 1) -> str:
    # Three figures: near 1 the second decimal counts.
    ratio = value / other if other else math.nan
    if math.isnan(ratio):
        return ''
    return f'{ratio:.{2 if ratio < 2 else digits}f}x'
