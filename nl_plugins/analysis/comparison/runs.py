"""What trainings reached, read from the files that the runner writes."""

import ast
import json
import math
import os
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...toolboxes import TOOLBOXES, Metric

#: The toolboxes' own, in percent, by their keys in the records.
KNOWN_METRICS = {
    metric.key: metric for toolbox in TOOLBOXES.values() for metric in toolbox.metrics
}

#: Characters at the start of a log, which hold the environment and the config.
_BEGINNING = 10**6
#: Settings in which repetitions of one training may differ.
_OF_ONE_RUN = ('work_dir', 'randomness', 'resume', 'launcher')


@dataclass(frozen=True)
class Run:
    """What the runner recorded of one training.

    Attributes:
        train (list[dict]): Training records, each with its ``'iteration'``.
        val (list[dict]): Evaluations, with the ``'iteration'`` they followed.
        work_dir (Path): Where it ran.
        name (str): Name of its config, without ``.py``.
        seed (int, optional): Its seed, None if none was set.
        settings (dict[str, Any]): Its config with dotted keys, without what
            concerns one run alone (seed, folders).
        environment (dict[str, str]): Versions of packages and number of GPUs,
            or processes on the CPU, as its log names them.
        model (dict): Config of its model.
        state (str): What is wrong with it, such as ``'5 of 12 epochs'`` or
            ``'loss is nan'``; ``''`` if it is complete.
    """

    train: list[dict]
    val: list[dict]
    work_dir: Path = Path()
    name: str = ''
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    state: str = ''
    environment: dict[str, str] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> str:
        """Iterations, and epochs of a training by epochs, ``''`` without any."""
        if not self.train:
            return ''
        text = f'{self.train[-1]["iteration"]} iterations'
        if epochs := self.train[-1].get('epoch'):
            text += f', {epochs} epochs'
        return text

    @property
    def seconds_per_iteration(self) -> float:
        """Median of the runner's own times, nan without any."""
        times = [r['time'] for r in self.train if 'time' in r]
        return statistics.median(times) if times else math.nan

    @property
    def training_seconds(self) -> float:
        """Time of all iterations by the runner's own times.

        Evaluations and interruptions are not in it.
        """
        total, previous = 0.0, 0
        for record in self.train:
            total += (record['iteration'] - previous) * record.get('time', 0.0)
            previous = record['iteration']
        return total

    def metrics(self) -> list[Metric]:
        """What its evaluations hold.

        Returns:
            list[Metric]: Box AP, mask AP, mIoU and top-1 as far as they are
            there; otherwise every number.
        """
        found = {key: value for record in self.val for key, value in record.items()}
        known = [KNOWN_METRICS[key] for key in KNOWN_METRICS if key in found]
        times = {'iteration', 'step', 'time', 'data_time'}
        return known or [
            Metric(key, key)
            for key, value in found.items()
            if key not in times and isinstance(value, (int, float))
        ]

    def values(self, metric: Metric) -> list[float]:
        """A metric of every evaluation that has it, in percent."""
        return [
            metric.factor * record[metric.key]
            for record in self.val
            if metric.key in record
        ]


def read_run(work_dir: str | Path) -> Run:
    """Read the latest training in a work directory.

    A training that was resumed is one with what it went on from.

    Args:
        work_dir (str | Path): The runner's work directory.

    Returns:
        Run: Its records. There may be no evaluation.

    Raises:
        FileNotFoundError: If no training left records there.
        ValueError: If its config cannot be read.
    """
    work_dir = Path(work_dir)
    train: list[dict] = []
    val: list[dict] = []
    config: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    environment: dict[str, str] = {}
    text = None
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        records = _read_records(path)
        first = next((r['step'] for r in records if 'loss' in r), None)
        if first is None:  # a test
            continue
        environment = _read_environment(path.parents[1])
        dumped = path.with_name('config.py')
        if dumped.exists():
            text = dumped.read_text(errors='replace')
            began_from = settings.get('load_from')
            try:
                config = parse_config(text)
            except ValueError as error:
                raise ValueError(f'{dumped.name} cannot be read: {error}') from error
            settings = dict(_flatten(config))
            if settings.get('resume'):  # load_from was the checkpoint
                settings['load_from'] = began_from
        if settings.get('resume'):
            train = [r for r in train if r['iteration'] < first]
            val = [r for r in val if r['iteration'] < first]
        else:
            train, val = [], []
        iteration = train[-1]['iteration'] if train else 0
        for record in records:
            # a training record counts iterations; an evaluation, of a
            # training by epochs, the epochs
            if 'loss' in record:
                iteration = record['step']
                train.append(record | dict(iteration=iteration))
            elif 'train_cfg.max_iters' in settings:
                val.append(record | dict(iteration=record['step']))
            else:
                val.append(record | dict(iteration=iteration))
    if not train:
        raise FileNotFoundError(
            f'{work_dir} has no */vis_data/scalars.json of a training'
        )
    return Run(
        train,
        val,
        work_dir,
        _config_name(work_dir, text),
        settings.get('randomness.seed'),
        _of_all_runs(settings),
        _state(work_dir, settings, train, val),
        environment,
        config.get('model', {}),
    )


def find_runs(folders: Iterable[str | Path]) -> list[Run]:
    """Read all trainings below some folders.

    Args:
        folders (Iterable[str | Path]): Work directories, or folders of them.

    Returns:
        list[Run]: The trainings that began, in the order of their paths. Of
        one that left no record, or cannot be read, there is its name alone.
    """
    work_dirs = dict.fromkeys(
        found for folder in folders for found in _work_dirs(folder)
    )
    runs = []
    for work_dir in work_dirs:
        try:
            runs.append(read_run(work_dir))
            continue
        except FileNotFoundError:
            # A test has its metrics; what has nothing began to train.
            if all(
                _read_records(path.with_name('scalars.json'))
                for path in work_dir.glob('*/vis_data/config.py')
            ):
                continue
            state = 'no record'
        except ValueError as error:
            state = str(error)
        runs.append(Run([], [], work_dir, _config_name(work_dir, None), state=state))
    return runs


def group_runs(runs: Iterable[Run]) -> list[list[Run]]:
    """Put together runs that differ in nothing but their seed.

    Args:
        runs (Iterable[Run]): Runs of one model.

    Returns:
        list[list[Run]]: In the order of their first runs. An incomplete run
        stands alone.
    """
    groups: list[list[Run]] = []
    for run in runs:
        group = next(
            (g for g in groups if g[0].settings == run.settings and not g[0].state),
            None,
        )
        if group is None or run.state:
            groups.append([run])
        else:
            group.append(run)
    return groups


def config_name(config: str) -> str:
    """Name of a config without folder, toolbox and suffix."""
    return config.rpartition('/')[2].rpartition('::')[2].removesuffix('.py')


def settings_of(cfg: Config) -> dict[str, Any]:
    """The settings that a run of a config has if nothing is overridden.

    Args:
        cfg (Config): A config, as loaded.

    Returns:
        dict[str, Any]: As :attr:`Run.settings`.
    """
    return _of_all_runs(dict(_flatten(parse_config(cfg.pretty_text))))


def model_differences(
    settings: dict[str, Any], other: dict[str, Any]
) -> dict[str, Any]:
    """The settings of a model that differ from others.

    Args:
        settings (dict[str, Any]): Those of a run.
        other (dict[str, Any]): What they are compared with.

    Returns:
        dict[str, Any]: By their keys, None where there is only another.
    """
    missing = object()
    return {
        key: settings.get(key)
        for key in {**other, **settings}
        # _scope_ says through which toolbox a base config was loaded
        if key.startswith('model.')
        and not key.endswith('_scope_')
        and settings.get(key, missing) != other.get(key, missing)
    }


def describe_difference(
    settings: dict[str, Any], other: dict[str, Any], most: int = 3
) -> str:
    """The settings that differ from others.

    Args:
        settings (dict[str, Any]): Those of a run.
        other (dict[str, Any]): What they are compared with.
        most (int): How many to name. Defaults to 3.

    Returns:
        str: Such as ``'optim_wrapper.optimizer.lr=0.01'``.
    """
    missing = object()
    keys = [
        key
        for key in {**other, **settings}
        if settings.get(key, missing) != other.get(key, missing)
    ]
    named = [f'{key}={settings.get(key)!r}' for key in keys[:most]]
    return ', '.join(named + ['...'] * (len(keys) > most))


def best(values: Sequence[float]) -> float:
    """The largest value, nan if none is finite."""
    return max(filter(math.isfinite, values), default=math.nan)


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Mean and, of several values, sample standard deviation.

    Args:
        values (Sequence[float]): At least one value.
        digits (int): After the decimal point.

    Returns:
        str: Such as ``'37.1 ± 0.2'``, ``'nan'`` if one is not finite.
    """
    if not all(map(math.isfinite, values)):
        return 'nan'
    text = f'{statistics.mean(values):.{digits}f}'
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):.{digits}f}'
    return text


def _work_dirs(folder: str | Path) -> Iterable[Path]:
    """The work directories below a folder, also behind links."""
    seen = set()
    for name, folders, files in os.walk(Path(folder).resolve(), followlinks=True):
        path = Path(name).resolve()
        if path in seen:
            folders.clear()
        seen.add(path)
        folders.sort()
        if path.name == 'vis_data' and 'config.py' in files:
            yield path.parents[1]


def _read_environment(folder: Path) -> dict[str, str]:
    """Versions and number of GPUs, from the beginning of a run's log."""
    log = folder / f'{folder.name}.log'
    if not log.exists():
        return {}
    with log.open(errors='replace') as file:
        beginning = file.read(_BEGINNING)
    found = dict(
        re.findall(r'^ +(PyTorch|MMEngine|GPU number): (\S+)', beginning, re.M)
    )
    for line in re.findall(r'Versions: (.*)', beginning):
        found |= dict(pair.split(' ', 1) for pair in line.split(', ') if ' ' in pair)
    return found


def _read_records(path: Path) -> list[dict]:
    """The records of a file, of which lines may be cut off."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # killed while writing
            continue
        if isinstance(record, dict) and 'step' in record:
            records.append(record)
    return records


def parse_config(text: str) -> dict[str, Any]:
    """The content of a config as the runner writes it.

    The text is read, never executed: a work directory may come from anybody.

    Args:
        text (str): Assignments of literals and ``dict(...)``. Of any other
            expression the source stands for the value.

    Returns:
        dict[str, Any]: Values by their names.

    Raises:
        ValueError: If it is no Python.
    """
    try:
        return {
            target.id: _literal(statement.value)
            for statement in ast.parse(text).body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f'it is no config: {error}') from error


def _of_all_runs(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings in which repetitions of one training agree."""
    return {
        key: value for key, value in settings.items() if not key.startswith(_OF_ONE_RUN)
    }


def _literal(node: ast.expr) -> Any:
    """The value of an expression, or its source if it is no literal."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == 'dict'
    ):
        if not node.args and all(word.arg for word in node.keywords):
            return {word.arg: _literal(word.value) for word in node.keywords}
        if len(node.args) == 1 and not node.keywords:  # keys are no identifiers
            return _literal(node.args[0])
    if isinstance(node, ast.Dict):
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        if len(keys) == len(node.keys):
            return dict(zip(keys, map(_literal, node.values)))
    if isinstance(node, ast.List):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(map(_literal, node.elts))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ast.unparse(node)


def _flatten(node: Any, key: str = '') -> Iterable[tuple[str, Any]]:
    items: Iterable[tuple[Any, Any]]
    if isinstance(node, dict) and node:
        items = node.items()
    elif isinstance(node, (list, tuple)) and any(
        isinstance(item, (dict, list, tuple)) for item in node
    ):
        items = enumerate(node)
    else:
        yield key, node
        return
    for name, value in items:
        yield from _flatten(value, f'{key}.{name}' if key else str(name))


def _config_name(work_dir: Path, text: str | None) -> str:
    """Name of the config that the runner has left in a work directory."""
    paths = sorted(work_dir.glob('*.py'))
    same = [path for path in paths if path.read_text(errors='replace') == text]
    return (same or paths or [work_dir])[0].name.removesuffix('.py')


def _state(
    work_dir: Path, settings: dict[str, Any], train: list[dict], val: list[dict]
) -> str:
    """What is wrong with a training, '' if nothing."""
    loss = train[-1]['loss']
    if not math.isfinite(loss):
        return f'loss is {loss}'
    epochs = settings.get('train_cfg.max_epochs')
    total = epochs or settings.get('train_cfg.max_iters')
    if total is None:
        return ''
    # An epoch is over when it was evaluated or saved.
    done = [r['step'] for r in val]
    unit, reached = 'iter', train[-1]['iteration']
    # not logged yet, at the most
    ahead = reached - train[-2]['iteration'] if len(train) > 1 else reached
    if epochs:
        unit, reached, ahead = 'epoch', train[-1].get('epoch', 1), 0
    last = work_dir / 'last_checkpoint'
    if last.exists():
        # It may be left from an earlier training.
        saved = re.findall(rf'{unit}_(\d+)', Path(last.read_text()).name)
        done += [n for n in map(int, saved) if n <= reached + ahead]
    done.append(reached - 1 if epochs else reached)
    if max(done) >= total:
        return ''
    return f'{max(done)} of {total} {"epochs" if epochs else "iterations"}'
