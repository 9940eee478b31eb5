"""The model zoo: metafiles, their index and the tables in the READMEs.

People write the entries of ``configs/*/metafile.yml``, see :mod:`.recipes`.
Parameters and FLOPs in them, ``model-index.yml`` and the tables are generated.
"""

import os
import re
from collections import Counter
from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import dump, load

from ..analysis.baselines import (
    PublishedResult,
    fair_baselines,
    inherited,
    published_results,
    results_of,
)
from ..analysis.complexity import Complexity, measure_complexity
from ..analysis.describe import describe_blocks
from ..analysis.tables import markdown_table
from ..engine.config import load_config
from ..errors import MetafileError, ToolboxNotInstalledError
from .recipes import check_recipe, source_table

_TABLE = re.compile(r'(<!-- model zoo -->\n).*?(<!-- /model zoo -->)', re.DOTALL)


def stale_files(root: Path) -> list[str]:
    """Find the generated files that are not what they should be.

    Parameters and FLOPs are read from the metafiles, not counted. Tables of
    configs whose toolbox is not installed are not checked.

    Args:
        root (Path): Folder that holds ``configs``.

    Returns:
        list[str]: Paths in that folder.

    Raises:
        MetafileError: If a metafile and the configs beside it disagree.
    """
    return [
        _inside(path, root)
        for path, text in _generate(root).items()
        if not path.is_file() or path.read_text() != text
    ]


def write_files(root: Path) -> list[Path]:
    """Measure all models and write the generated files.

    Args:
        root (Path): Folder that holds ``configs``.

    Returns:
        list[Path]: The files.

    Raises:
        MetafileError: If a metafile and the configs beside it disagree.
    """
    measured = {}
    metafiles = _read_metafiles(root)
    for file, content in metafiles.items():
        for entry in content['Models'] if _is_installed(content, root) else ():
            cfg = load_config(str(root / entry['Config']))
            # Many configs differ in their schedule alone.
            key = str((cfg.model, cfg.train_dataloader.dataset))
            if key not in measured:
                measured[key] = measure_complexity(cfg)
            _set_complexity(entry['Metadata'], measured[key])
        file.write_text(_to_yaml(content))
    generated = _generate(root)
    for path, text in generated.items():
        path.write_text(text)
    return [*metafiles, *generated]


def _generate(root: Path) -> dict[Path, str]:
    """The text of every generated file."""
    metafiles = _read_metafiles(root)
    files = {
        root / 'model-index.yml': _to_yaml(
            {'Import': [_inside(file, root) for file in metafiles]}
        )
    }
    for file, content in metafiles.items():
        files[file] = _to_yaml(content)
        if not _is_installed(content, root):
            continue
        readme = file.with_name('README.md')
        table = _table(content['Models'], root)
        text = readme.read_text()
        found = _TABLE.search(text)
        if not found:
            raise MetafileError(
                f'{_inside(readme, root)} has no place for '
                'the table: <!-- model zoo --> and '
                '<!-- /model zoo --> on lines of their own'
            )
        start, end = text[: found.start()] + found[1], found[2] + text[found.end() :]
        files[readme] = f'{start}{table}\n{end}'
    return files


def _is_installed(content: dict, root: Path) -> bool:
    """Whether the toolbox of the configs in a metafile is there."""
    try:
        list(inherited(str(root / content['Models'][0]['Config'])))
    except ToolboxNotInstalledError:
        return False
    return True


# Metafiles ----------------------------------------------------------------


def _read_metafiles(root: Path) -> dict[Path, dict]:
    """The content of all metafiles, which list every config once."""
    folders = {
        path.parent
        for pattern in ('*.py', 'metafile.yml')
        for path in (root / 'configs').rglob(pattern)
        if not {'demo', '_base_'} & set(path.relative_to(root).parts)
    }
    metafiles = {}
    names: Counter[str] = Counter()
    for file in sorted(folder / 'metafile.yml' for folder in folders):
        if not file.is_file():
            raise MetafileError(f'there is no {_inside(file, root)}')
        metafiles[file] = load(file)
        _check_metafile(file, metafiles[file], root)
        names.update(model['Name'] for model in metafiles[file]['Models'])
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise MetafileError(f'models of more than one metafile: {", ".join(twice)}')
    return metafiles


def _check_metafile(file: Path, content: dict, root: Path) -> None:
    """Raise if a metafile does not list the configs of its folder."""
    where = _inside(file, root)
    listed = [model['Config'] for model in content['Models']]
    present = sorted(_inside(path, root) for path in file.parent.glob('*.py'))
    wrong = sorted(set(present) ^ set(listed))
    if wrong or len(listed) > len(present):
        wrong = wrong or [c for c, n in Counter(listed).items() if n > 1]
        raise MetafileError(
            f'{where} must list the configs of its folder '
            f'once, but not so: {", ".join(wrong)}'
        )
    collections = [entry['Name'] for entry in content['Collections']]
    for model in content['Models']:
        stem = Path(model['Config']).stem
        if model['Name'] != stem:
            raise MetafileError(
                f'{where}: the model of {stem}.py must have '
                f"its name, but got '{model['Name']}'"
            )
        if model['In Collection'] not in collections:
            raise MetafileError(
                f"{where}: there is no collection '{model['In Collection']}'"
            )


def _set_complexity(metadata: dict, cost: Complexity) -> None:
    """Write what a model costs under the names that upstream uses."""
    *frames, height, width = cost.shape
    metadata.update(
        Parameters=cost.parameters, FLOPs=cost.flops, Resolution=f'{height}x{width}'
    )
    if frames:
        metadata['Frame'] = frames[0]


def _to_yaml(content: dict) -> str:
    return dump(content, file_format='yaml', sort_keys=False, width=1000)


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


# Tables -------------------------------------------------------------------


def _table(models: list[dict], root: Path) -> str:
    """One row for each model of a metafile, and below one for each source."""
    head = ['config', 'blocks', 'input', 'parameters', 'FLOPs']
    head += ['baseline', 'published for it', 'trained here']
    rows = []
    for entry in models:
        path = root / entry['Config']
        cfg = Config.fromfile(path)
        check_recipe(entry, cfg)
        blocks = list(describe_blocks(cfg.model))
        baselines, published = _baselines(path) if blocks else ('', '')
        rows.append(
            [
                f'[{path.stem}]({path.name})',
                '<br>'.join(blocks) or 'none',
                *_complexity(entry),
                baselines,
                published,
                _metrics(results_of(entry)),
            ]
        )
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    sources = source_table(models)
    return '\n\n'.join(filter(None, [markdown_table(head, rows), sources]))


def _complexity(entry: dict) -> list[str]:
    metadata = entry['Metadata']
    if not {'Parameters', 'FLOPs', 'Resolution'} <= set(metadata):
        raise MetafileError(
            f'the metafile entry of {entry["Name"]} lacks Parameters, FLOPs '
            'or Resolution; run: python tools/model_zoo.py --write'
        )
    shape = metadata['Resolution'].split('x')
    if 'Frame' in metadata:
        shape.insert(0, str(metadata['Frame']))
    return [
        ' x '.join(shape),
        f'{metadata["Parameters"] / 1e6:.1f} M',
        f'{metadata["FLOPs"] / 1e9:.1f} G',
    ]


def _baselines(path: Path) -> tuple[str, str]:
    """Cells for the baselines of a config, and what was published for them."""
    cells, metrics = [], []
    for name in fair_baselines(str(path)):
        upstream = '::' in name
        relative = os.path.relpath(name, path.parent)
        cells.append(f'`{name}`' if upstream else f'[{Path(name).stem}]({relative})')
        metrics.append(_metrics(published_results(name)) if upstream else '')
    return '<br>'.join(cells), '<br>'.join(metrics) if any(metrics) else ''


def _metrics(results: list[PublishedResult]) -> str:
    return ', '.join(
        f'{name} {value}'
        for result in results
        for name, value in result.metrics.items()
    )
