"""Everything that is known of some models and their baselines."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...engine.config import find_config, load_config
from ...errors import OptionError, first_line
from ..baselines import PublishedResult, fair_baselines, published_results
from ..complexity import Complexity, input_shape, measure_complexity
from ..describe import describe_blocks
from ..progress import progress
from .costs import PHASES, Cost, Setting, measure_costs
from .runs import Run, config_name, find_runs, group_runs, settings_of
from .variants import Variant, find_variants


@dataclass(frozen=True)
class Model:
    """What is known of a model.

    Attributes:
        config (str): Path or name of its config.
        blocks (str): Its blocks and their places.
        complexity (Complexity, optional): Its parameters and FLOPs, None if
            they could not be counted.
        error (str): Why they could not, ``''`` if they could.
        costs (dict[str, Cost]): What it takes, by phase; empty if that was
            not measured.
        runs (list[list[Run]]): Its trainings, those together that differ in
            their seed alone.
        settings (dict[str, Any]): Those of its config, as in
            :attr:`Run.settings`.
        label (str): What tells it from a model of the same name: the package,
            or in brackets the options with which its runs were started;
            ``''`` where there is none.
    """

    config: str
    blocks: str = ''
    complexity: Complexity | None = None
    error: str = ''
    costs: dict[str, Cost] = field(default_factory=dict)
    runs: list[list[Run]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    label: str = ''

    @property
    def name(self) -> str:
        """Name of the config without folder and suffix, or its label."""
        return self.label or config_name(self.config)

    @property
    def all_runs(self) -> list[Run]:
        """Its trainings, one after the other."""
        return [run for runs in self.runs for run in runs]


@dataclass(frozen=True)
class Group:
    """Models of one baseline.

    Attributes:
        models (list[Model]): The baseline first.
        published (list[PublishedResult]): What upstream published for the
            baseline.
    """

    models: list[Model]
    published: list[PublishedResult]


@dataclass(frozen=True)
class Comparison:
    """The models that were named, and runs of others.

    Attributes:
        groups (list[Group]): One for each baseline.
        setting (Setting): How they were measured.
        searched (list[str]): Folders of work directories.
        other_runs (list[Run]): Runs that were found there, but belong to
            none of the models.
    """

    groups: list[Group]
    setting: Setting
    searched: list[str]
    other_runs: list[Run]


def compare(
    configs: Sequence[str],
    baselines: Sequence[str] = (),
    work_dirs: Sequence[str] = (),
    setting: Setting | None = None,
) -> Comparison:
    """Find out everything about some models and their baselines.

    Of a config whose runs trained other models, by options of their command
    line, these are compared, each with its own size, time and memory. What
    fails for one model, such as counting its FLOPs, is kept as its error, and
    the others go on.

    Args:
        configs (Sequence[str]): Paths or names of configs.
        baselines (Sequence[str]): What all of them are compared with; gains and
            ratios are over the first. Defaults to none: for each one those of
            :func:`nl_plugins.analysis.baselines.fair_baselines`.
        work_dirs (Sequence[str]): Folders below which their trainings are
            looked for. Defaults to none.
        setting (Setting, optional): How time and memory are measured; with
            ``repeats=0`` they are not. Defaults to None, the defaults of
            :class:`Setting`.

    Returns:
        Comparison: What was found.

    Raises:
        ConfigNotFoundError: There is no such config.
        ToolboxNotInstalledError: The toolbox of one cannot be imported.
        OptionError: A config inherits from none of a toolbox and no
            baseline is given, two configs have one name, the size of an
            input is unknown, or a folder does not exist.
    """
    setting = setting or Setting()
    for folder in work_dirs:
        if not Path(folder).is_dir():
            raise OptionError(f"there is no folder '{folder}' of runs")
    by_baseline = _by_baseline(configs, baselines)
    labels = _labels([c for names in by_baseline.values() for c in names])
    # Before anything long begins.
    settings = {}
    for config in labels:
        cfg = load_config(config)
        if 'model' not in cfg:
            raise OptionError(f'{config} has no model')
        input_shape(cfg, setting.shape)
        settings[config] = settings_of(cfg)

    runs = find_runs(work_dirs)
    of_config = _assign(runs, settings)
    variants = {
        first: [
            variant
            for config in names
            for variant in find_variants(
                config, labels[config], settings[config], of_config.get(config, [])
            )
        ]
        for first, names in by_baseline.items()
    }
    phases = PHASES if setting.repeats else ()
    steps = sum(
        len(found) + len(phases) * (len(found) + 1) for found in variants.values()
    )
    groups = []
    with progress(steps) as tell:
        for first, found in variants.items():
            costs = [measure_costs(found, phase, setting, tell) for phase in phases]
            models = []
            for number, variant in enumerate(found):
                tell(f'parameters and FLOPs: {variant.name}')
                of_phases = {p: cost[number] for p, cost in zip(phases, costs)}
                models.append(
                    _describe(variant, settings[variant.config], of_phases, setting)
                )
            groups.append(Group(models, published_results(first)))
    known = {config_name(config) for config in labels}
    return Comparison(
        groups, setting, list(work_dirs), [run for run in runs if run.name not in known]
    )


def _by_baseline(
    configs: Sequence[str], baselines: Sequence[str]
) -> dict[str, list[str]]:
    """The configs of each baseline, which is the first of them."""
    files: dict[Path, str] = {}

    def spell(config: str) -> str:
        # One file may be written in several ways.
        return files.setdefault(find_config(config).resolve(), config)

    groups: dict[str, list[str]] = {}
    for config in dict.fromkeys(map(spell, configs)):
        found = list(baselines) or fair_baselines(config)
        if not found:
            raise OptionError(
                f'{config} inherits from no config of a toolbox: name its '
                'baseline with --baseline'
            )
        group = groups.setdefault(spell(found[0]), [])
        for member in (*map(spell, found), config):
            if member not in group:
                group.append(member)
    return groups


def _labels(configs: Iterable[str]) -> dict[str, str]:
    """The label of each config, which names its package where it must."""
    by_name: dict[str, list[str]] = {}
    for config in dict.fromkeys(configs):
        by_name.setdefault(config_name(config), []).append(config)
    labels = {}
    for name, same in by_name.items():
        for config in same:
            package = config.rpartition('::')[0]
            labels[config] = f'{package}::{name}' if package and len(same) > 1 else ''
        local = [config for config in same if not labels[config]]
        if len(local) > 1:
            raise OptionError(
                f'{local[0]} and {local[1]} have the same name: '
                'their runs could not be told apart'
            )
    return labels


def _assign(
    runs: list[Run], settings: dict[str, dict[str, Any]]
) -> dict[str, list[Run]]:
    """The runs of each config, by their name and, of several, their settings."""
    by_name: dict[str, list[str]] = {}
    for config in settings:
        by_name.setdefault(config_name(config), []).append(config)

    def distance(run: Run, config: str) -> int:
        keys = {**run.settings, **settings[config]}
        return sum(run.settings.get(k) != settings[config].get(k) for k in keys)

    found: dict[str, list[Run]] = {}
    for run in runs:
        same = by_name.get(run.name, [])
        if len(same) > 1:
            same = [min(same, key=lambda config: distance(run, config))]
        for config in same:
            found.setdefault(config, []).append(run)
    return found


def _describe(
    variant: Variant,
    settings: dict[str, Any],
    costs: dict[str, Cost],
    setting: Setting,
) -> Model:
    complexity, blocks, error = None, '', ''
    try:
        cfg = variant.load()
        blocks = '; '.join(describe_blocks(cfg.model))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            complexity = measure_complexity(cfg, setting.shape)
    except Exception as failure:  # whatever a model may raise
        error = first_line(failure)
    return Model(
        variant.config,
        blocks,
        complexity,
        error,
        costs,
        group_runs(variant.runs),
        settings,
        variant.label,
    )
