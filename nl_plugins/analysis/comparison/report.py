"""The comparison as one call, for notebooks, scripts and ``tools/compare.py``."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...engine.command_line import default_device, make_folder
from ...errors import OptionError
from ..tables import Table, to_html, to_markdown
from . import models, page, tables
from .costs import Setting

#: A path or a name, or several.
Names = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Report:
    """A comparison that displays itself in a notebook; ``print`` writes Markdown.

    Attributes:
        comparison (Comparison): All figures, unrounded.
        command (str): The command of ``tools/compare.py`` that gives the same.
    """

    comparison: models.Comparison
    command: str

    @property
    def parts(self) -> list[Table | str]:
        """Headings, tables and paragraphs, in their order."""
        found: list[Table | str] = []
        for group in self.comparison.groups:
            found.append(f'## {group.models[0].name}')
            found += tables.tables(self.comparison, group)
        for run in self.comparison.other_runs:
            found.append(f'left out, of another config: {run.work_dir} ({run.name})')
        return found

    def __repr__(self) -> str:
        return to_markdown(*self.parts)

    def _repr_markdown_(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return to_html(*self.parts)

    def write(self, folder: str | Path) -> None:
        """Write ``comparison.html``, ``comparison.md``, ``models.csv``, ``runs.csv``.

        Args:
            folder (str | Path): Gets the files; made if missing.

        Raises:
            OptionError: The folder cannot be made.
        """
        folder = Path(folder)
        make_folder(folder)
        (folder / 'comparison.md').write_text(str(self), encoding='utf-8')
        tables.write_records(self.comparison, folder)
        page.write_page(self.comparison, folder / 'comparison.html', self.command)


def compare(
    configs: Names,
    baseline: Names = (),
    work_dirs: Names = (),
    shape: Sequence[int] | None = None,
    batch_size: int = 2,
    repeats: int = 5,
    device: str | None = None,
) -> Report:
    """Compare models with their baseline: size, time, memory and trainings.

    What models cost is measured here, with noise as input and random weights;
    what they reached is read from the folders of their runs. What fails for
    one model is named in its row, and the others go on.

    Processes are started to measure time and memory. So a script calls this
    under ``if __name__ == '__main__':``, a notebook needs nothing.

    Args:
        configs (str | Path | Sequence): Paths or names of configs.
        baseline (str | Path | Sequence): What all of them are compared with;
            gains and ratios are over the first. Defaults to none: for each
            config the upstream one that it inherits from, or one of the same
            depth without blocks that stands between; for non-local heads FCN,
            and the head of MMSegmentation.
        work_dirs (str | Path | Sequence): Work directories of trainings, or
            folders of them. Defaults to none.
        shape (Sequence[int], optional): Size of the input in pixels,
            ``(H, W)``, of videos ``(T, H, W)`` with frames. Defaults to None:
            the clips or crops of training, for detection what images are
            resized to.
        batch_size (int): Samples of a measured training step. Defaults to 2.
        repeats (int): Turns in which time is measured; 0 measures neither time
            nor memory. Defaults to 5.
        device (str, optional): Where to measure, such as ``'cuda:0'``.
            Defaults to None, the accelerator of this machine if there is one.

    Returns:
        Report: The tables, which a notebook displays and ``print`` writes as
        Markdown. ``report.write('comparison')`` writes them, the page with all
        curves and pictures, and the unrounded figures; ``report.comparison``
        holds them.

    Raises:
        ConfigNotFoundError: There is no such config.
        ToolboxNotInstalledError: The toolbox of one cannot be imported.
        OptionError: A config inherits from none of a toolbox and no
            baseline is given, two configs have one name, the size of an
            input is unknown, a folder does not exist, or a number is too
            small.
    """
    if batch_size < 1 or repeats < 0:
        raise OptionError(
            'batch_size must be at least 1 and repeats at least 0, '
            f'but got {batch_size} and {repeats}'
        )
    size = tuple(shape) if shape else None
    setting = Setting(size, device or default_device(), batch_size, repeats)
    named = _names(configs), _names(baseline), _names(work_dirs)
    found = models.compare(*named, setting)
    return Report(found, _command(*named, setting))


def _command(
    configs: list[str], baseline: list[str], work_dirs: list[str], setting: Setting
) -> str:
    """The command of the tool for a call."""
    options: dict[str, list[str]] = {
        '--baseline': baseline,
        '--work-dirs': work_dirs,
        '--shape': ['x'.join(map(str, setting.shape))] if setting.shape else [],
        '--batch-size': [str(setting.batch_size)],
        '--repeats': [str(setting.repeats)],
        '--device': [setting.device],
    }
    words = ['python', 'tools/compare.py', *configs]
    for option, values in options.items():
        words += [option, *values] if values else []
    return shlex.join(words)


def _names(given: Names) -> list[str]:
    """A list of what may be a single path or name."""
    return list(map(str, [given] if isinstance(given, (str, Path)) else given))
