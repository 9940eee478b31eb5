"""Parameters and FLOPs of models, beside those of the first one."""

import argparse

from nl_plugins.analysis.complexity import measure_complexity
from nl_plugins.analysis.tables import Table, show
from nl_plugins.engine import command_line, load_config


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/complexity.py '
        'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py',
    )
    parser.add_argument(
        'configs',
        nargs='+',
        metavar='CONFIG',
        help='paths or names of configs; the first one is the baseline',
    )
    command_line.add_shape_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    head = ['config', 'input', 'parameters', 'ratio', 'FLOPs', 'ratio']
    rows = []
    with command_line.report_errors():
        first = None
        for name in args.configs:
            found = measure_complexity(load_config(name), args.shape)
            first = first or found
            rows.append(
                [
                    name.rpartition('/')[2].removesuffix('.py'),
                    ' x '.join(map(str, found.shape)),
                    f'{found.parameters / 1e6:.3g} M',
                    f'{found.parameters / first.parameters:.2f}x',
                    f'{found.flops / 1e9:.3g} G',
                    f'{found.flops / first.flops:.2f}x',
                ]
            )
    show(Table('', head, rows))


if __name__ == '__main__':
    main()
