"""Models of a config: its own, and others that its runs trained by options."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as MMENGINE_MODELS

from ...engine.config import load_config
from ...registry import FOR_MMSEG, MODELS
from .runs import Run, config_name, model_differences


@dataclass(frozen=True)
class Variant:
    """A model of a config.

    Attributes:
        config (str): Path or name of the config.
        model (dict, optional): Config of the model as its runs have it. None is
            the config's own.
        label (str): What tells it from models of other configs of the name, or
            from others of the config, such as ``'NAME (depth=18)'``; ``''`` if
            there are none.
        runs (list[Run]): Trainings of this model.
    """

    config: str
    model: dict | None = None
    label: str = ''
    runs: list[Run] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the config without folder and suffix, or the label."""
        return self.label or config_name(self.config)

    def load(self) -> Config:
        """Load the config, with the model of the runs.

        Raises:
            ValueError: The runs name a type that neither the config has nor mmcv
                or this package. Their files may come from anybody, and a type
                may be any function, or download what it runs.
        """
        cfg = load_config(self.config)
        if self.model is not None:
            known = {*_types(cfg.model), *MMENGINE_MODELS.module_dict}
            own = (*MODELS.module_dict, *FOR_MMSEG)
            known |= {f'nl_plugins.{name}' for name in own}
            unknown = [name for name in _types(self.model) if name not in known]
            if unknown:
                raise ValueError(
                    f'its runs have the type {unknown[0]!r}, which is none of the '
                    'config, mmcv and nl_plugins'
                )
            cfg.model = ConfigDict(self.model)
        return cfg


def find_variants(
    config: str, label: str, settings: dict[str, Any], runs: list[Run]
) -> list[Variant]:
    """Find the models that the runs of a config trained.

    Args:
        config (str): Path or name of the config.
        label (str): What tells it from other configs of its name.
        settings (dict[str, Any]): Its settings, as :attr:`.runs.Run.settings`.
        runs (list[Run]): Its trainings.

    Returns:
        list[Variant]: One for each model, in the order of their first runs; the
        config's own if there are no runs.
    """
    by_options: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        options = model_differences(run.settings, settings) if run.model else {}
        by_options.setdefault(repr(options), (options, []))[1].append(run)
    found = list(by_options.values()) or [({}, [])]
    first = found[0][0]
    varying = [
        key
        for key in dict.fromkeys(key for options, _ in found for key in options)
        if any(options.get(key, ...) != first.get(key, ...) for options, _ in found)
    ]
    last = [key.rpartition('.')[2] for key in varying]
    names = {
        key: name if last.count(name) == 1 else key.removeprefix('model.')
        for key, name in zip(varying, last)
    }
    variants = []
    for options, same in found:
        own = {**settings, **options}
        values = ', '.join(
            f'{names[key]}={own[key]!r}' for key in varying if key in own
        )
        variants.append(
            Variant(
                config,
                same[0].model if options else None,
                f'{label or config_name(config)} ({values})' if values else label,
                same,
            )
        )
    return variants


def _types(node: Any) -> Iterator[str]:
    """The types that the config of a model names."""
    if isinstance(node, dict):
        yield from (node[key] for key in ('type', 'base') if key in node)
    if isinstance(node, (dict, list, tuple)):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _types(item)
