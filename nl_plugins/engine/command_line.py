"""Arguments and error messages of the command-line tools."""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import DictAction

from ..errors import OptionError, RunError, first_line
from .start import is_first_process


def make_parser(description: str | None, example: str) -> argparse.ArgumentParser:
    """Make the parser of a command-line tool, whose help ends with an example.

    Args:
        description (str, optional): What the tool does.
        example (str): A command that can be copied.
    """
    return argparse.ArgumentParser(
        description=description,
        epilog=f'example:\n  {example}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share.

    Args:
        parser (argparse.ArgumentParser): Parser of a command-line tool.
    """
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='folder of logs and checkpoints; without it, work_dir of the '
        'config, or ./work_dirs/<name of the config>',
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='folder of the data, with the layout that the config expects; '
        'without it, the folder that the config names',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, such as '
        'train_dataloader.batch_size=4 or randomness.seed=0; lists are '
        'written key="[a,b]" or key=a,b, nested ones key="[(a,b),(c,d)]", '
        'without white space',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run (default: none)',
    )
    # Set by torch.distributed.launch.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS
    )


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Print an error that a user can fix as one message and exit with 1.

    In a distributed run only the first process prints. An interruption by the
    user (130) and a full memory are one line too.
    """
    try:
        yield
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except torch.cuda.OutOfMemoryError as error:
        sys.exit(
            f'error: {first_line(error)} Try --amp, a smaller '
            'train_dataloader.batch_size, with_cp=True or reduction=4 of the block, or '
            'a place with fewer positions (tools/places.py)'
        )
    except RunError as error:
        if not is_first_process():
            # The first process that exits makes the launcher end all others.
            time.sleep(10)
            sys.exit(1)
        message = str(error)
        if message.startswith('Caught '):  # followed by a worker's traceback
            message = message.rpartition(f'{type(error).__name__}: ')[2]
        sys.exit(f'error: {message.strip()}')


def report_written(*paths: str | Path | None) -> None:
    """Print, at the end of a tool, what it has written.

    Args:
        *paths (str | Path, optional): Files and folders; None is left out.
    """
    if is_first_process():
        names = (str(path).removeprefix(f'{Path.cwd()}/') for path in paths if path)
        print('written:', ', '.join(names))


def add_shape_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument for the size of a model's input.

    Args:
        parser (argparse.ArgumentParser): Parser of a command-line tool.
    """
    parser.add_argument(
        '--shape',
        type=sizes,
        metavar='[Tx]HxW',
        help='size of the input (default: the clips or crops of training, '
        'for detection what images are resized to)',
    )


def sizes(text: str) -> tuple[int, ...]:
    """An argument such as ``64``, ``64x128`` or ``8x224x224``."""
    parts = text.lower().split('x')
    if len(parts) > 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not L, HxW or TxHxW with numbers of at least 1'
        )
    return tuple(map(int, parts))


def natural(text: str) -> int:
    """An argument that is an integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is no integer of at least 0')
    return int(text)


def positive(text: str) -> int:
    """An argument that is an integer of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is no integer of at least 1')
    return int(text)


def default_device() -> str:
    """The accelerator of this machine, the CPU without one."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def device(text: str) -> str:
    """An argument that names a device of this machine."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(
            f'{text!r} is no device of this machine: {reason}'
        ) from None
    return text


def make_folder(path: Path) -> None:
    """Create the folder of results, before a long computation starts.

    Args:
        path (Path): The folder, which may exist.

    Raises:
        OptionError: If it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f'the folder {path} cannot be made: {error.strerror}'
        ) from error
