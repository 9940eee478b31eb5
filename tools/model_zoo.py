"""Check or write model-index.yml, the metafiles and the READMEs' tables."""

import argparse
import sys
from pathlib import Path

from nl_plugins.engine import command_line
from nl_plugins.zoo.model_zoo import stale_files, write_files

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/model_zoo.py --write',
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        '--check',
        action='store_true',
        help='name the files that are not current (default)',
    )
    modes.add_argument(
        '--write',
        action='store_true',
        help='count the parameters and FLOPs of all models, which takes '
        'minutes, and write the files',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with command_line.report_errors():
        if args.write:
            command_line.report_written(*write_files(ROOT))
        elif stale := stale_files(ROOT):
            sys.exit(
                f'error: not current: {", ".join(stale)}; run: '
                'python tools/model_zoo.py --write'
            )


if __name__ == '__main__':
    main()
