"""Compare models with their upstream baseline.

What they cost is measured side by side, what they reached is read from their
runs.
"""

import argparse
from pathlib import Path

from nl_plugins.analysis.comparison.report import compare
from nl_plugins.analysis.tables import show
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
    args = vars(parse_args())
    out = args.pop('out')
    with command_line.report_errors():
        if out:  # before anything long begins
            command_line.make_folder(out)
        report = compare(**args)
        show(*report.parts)
        if out:
            report.write(out)
            command_line.report_written(out)


if __name__ == '__main__':
    main()
