"""What the command-line tools share: arguments and one-line errors."""
import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator

from mmengine.config import DictAction

from .errors import RunError


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share.

    Args:
        parser (argparse.ArgumentParser): Parser of a command-line tool.
    """
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='folder of logs and checkpoints; without it, work_dir of the '
        'config, or ./work_dirs/<name of the config>')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, such as '
        'train_dataloader.batch_size=4 or randomness.seed=0; lists are '
        'written key="[a,b]" or key=a,b, nested ones key="[(a,b),(c,d)]", '
        'without white space')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run '
        '(default: none)')
    # Set by torch.distributed.launch.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS)


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what a user can fix into one message and exit status 1.

    Of several processes only the first one speaks.
    """
    try:
        yield
    except RunError as error:
        ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
        rank = next((os.environ[k] for k in ranks if k in os.environ), '0')
        if rank != '0':
            # A launcher ends all processes when the first one is gone.
            time.sleep(10)
            sys.exit(1)
        message = str(error)
        if message.startswith('Caught '):  # with the traceback of a worker
            message = message.rpartition(f'{type(error).__name__}: ')[2]
        sys.exit(f'error: {message.strip()}')
