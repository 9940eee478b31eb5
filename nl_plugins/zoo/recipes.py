"""How a config trains, and where that comes from, in the metafiles.

People write ``Recipe`` and ``Source`` of each model. A recipe that is not that
of the config is an error, so that neither changes without the other.
"""

import re
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..analysis.describe import describe_blocks
from ..analysis.tables import markdown_table
from ..errors import MetafileError

_GPUS_IN_NAME = re.compile(r'_(\d+)xb(\d+)-')
_SOURCE_KEYS = {'Paper', 'Where', 'Result', 'Code', 'Differences'}
_DIFFERENCE_KEYS = {'What', 'Here', 'Source', 'Why'}


def recipe_of(cfg: Config, name: str) -> dict[str, Any]:
    """Read the recipe of a config.

    Args:
        cfg (Config): The config.
        name (str): Its name, in which the number of GPUs and of samples on
            each may stand (``_8xb16-``).

    Returns:
        dict[str, Any]: GPUs, samples of a step, rate, decay, length and blocks,
        as under ``Recipe`` of a metafile.

    Raises:
        MetafileError: If the name has another number of samples than the
            config.
    """
    samples = cfg.train_dataloader.batch_size
    batch = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    if found := _GPUS_IN_NAME.search(name):
        gpus, named = map(int, found.groups())
        if named != samples or batch not in (None, gpus * named):
            raise MetafileError(
                f'{name} has the batch of {gpus} x {named} in its name, but '
                f'{samples} samples for each GPU and a base_batch_size of {batch}'
            )
    else:
        gpus = (batch or samples) // samples
    train = cfg.train_cfg
    epochs = train.get('max_epochs')
    optimizer = cfg.optim_wrapper.optimizer
    return {
        'GPUs': gpus,
        'Batch Size': gpus * samples,
        'Learning Rate': optimizer.lr,
        'Weight Decay': optimizer.get('weight_decay', 0),
        'Schedule': f'{epochs} epochs' if epochs else f'{train.max_iters} iterations',
        'Blocks': list(describe_blocks(cfg.model)),
    }


def check_recipe(entry: dict, cfg: Config) -> None:
    """Compare the recipe in a metafile with that of the config.

    Args:
        entry (dict): The model's entry.
        cfg (Config): Its config.

    Raises:
        MetafileError: If they differ, or ``Source`` has other keys than
            ``Paper``, ``Where``, ``Result``, ``Code`` and ``Differences``.
    """
    name = entry['Name']
    given, found = entry.get('Recipe', {}), recipe_of(cfg, name)
    wrong = [
        f'{key} is {given.get(key)!r} in the metafile, {found.get(key)!r} in the config'
        for key in {**found, **given}
        if given.get(key) != found.get(key)
    ]
    if wrong:
        raise MetafileError(f'Recipe of {name}: {"; ".join(wrong)}')
    source = entry.get('Source', {})
    unknown = set(source) - _SOURCE_KEYS
    for difference in source.get('Differences', []):
        unknown |= set(difference) ^ _DIFFERENCE_KEYS
    if unknown or (source and not {'Paper', 'Where'} <= set(source)):
        raise MetafileError(
            f'Source of {name} must have Paper and Where, may have Result, Code and '
            'Differences, each of What, Here, Source and Why, but '
            f'{", ".join(sorted(unknown)) or "one of the first two"} is wrong'
        )


def source_table(models: list[dict]) -> str:
    """One row for each model of a metafile that has a source.

    Args:
        models (list[dict]): Entries of a metafile.

    Returns:
        str: A Markdown table, ``''`` if there is no source.
    """
    rows = []
    for entry in models:
        if source := entry.get('Source'):
            recipe = entry['Recipe']
            rows.append(
                [
                    f'[{entry["Name"]}]({Path(entry["Config"]).name})',
                    f'{source["Paper"]}, {source["Where"]}',
                    source.get('Result', ''),
                    f'[recipe]({source["Code"]})' if 'Code' in source else '',
                    f'{recipe["GPUs"]} x {recipe["Batch Size"] // recipe["GPUs"]}',
                    '<br>'.join(map(_difference, source.get('Differences', []))),
                ]
            )
    head = ['config', 'paper', 'published there', 'code', 'GPUs x samples']
    head.append('what differs')
    return markdown_table(head, rows) if rows else ''


def _difference(difference: dict) -> str:
    what, here, source, why = (
        difference[key] for key in ('What', 'Here', 'Source', 'Why')
    )
    return f'{what}: {here}, there {source}; {why}'
