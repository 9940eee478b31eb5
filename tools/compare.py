"""Compare models with their upstream baseline.

What they cost is measured side by side, what they reached is read from their
runs.
"""

import argparse
from pathlib import Path

from nl_plugins.analysis.comparison import models, page, tables
from nl_plugins.analysis.comparison.costs import Setting
from nl_plugins.analysis.tables import show, to_markdown
from nl_plugins.engine import command_line


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/compare.py '
        'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py \\\n'
        '    --work-dirs work_dirs --out comparison',
    )
    parser.add_argument(
        'configs', nargs='+', metavar='CONFIG', help='paths or names of configs'
    )
    parser.add_argument(
        '--baseline',
        nargs='+',
        default=[],
        metavar='CONFIG',
        help='what all of them are compared with; gains are over the first '
        '(default: for each one the upstream config that it inherits from, or '
        'one of the same depth without blocks that stands between; for '
        'non-local heads FCN, and the head of MMSegmentation)',
    )
    parser.add_argument(
        '--work-dirs',
        nargs='+',
        default=[],
        metavar='DIR',
        help='work directories of trainings, or folders of them',
    )
    command_line.add_shape_argument(parser)
    parser.add_argument(
        '--batch-size',
        type=command_line.positive,
        default=2,
        metavar='N',
        help='samples of a measured training step (default: 2)',
    )
    parser.add_argument(
        '--repeats',
        type=command_line.natural,
        default=5,
        metavar='N',
        help='turns in which time is measured; 0 measures neither time nor '
        'memory (default: 5)',
    )
    parser.add_argument(
        '--device',
        type=command_line.device,
        default=command_line.default_device(),
        help='such as cpu or cuda:0 (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='write comparison.html, comparison.md, models.csv and runs.csv there',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    setting = Setting(args.shape, args.device, args.batch_size, args.repeats)
    with command_line.report_errors():
        if args.out:
            command_line.make_folder(args.out)
        found = models.compare(args.configs, args.baseline, args.work_dirs, setting)
    parts = [
        part
        for group in found.groups
        for part in (f'## {group.models[0].name}', *tables.tables(found, group))
    ]
    show(*parts)
    for run in found.other_runs:
        print(f'left out, of another config: {run.work_dir} ({run.name})')
    if args.out:
        (args.out / 'comparison.md').write_text(to_markdown(*parts))
        tables.write_records(found, args.out)
        page.write_page(found, args.out / 'comparison.html')
        print(
            f'written to {args.out}: comparison.html, comparison.md, '
            'models.csv, runs.csv'
        )


if __name__ == '__main__':
    main()
