"""Where a block can be inserted into a model, and what it would cost there."""

import argparse

import nl_plugins
from nl_plugins.analysis.complexity import example_input, input_shape
from nl_plugins.analysis.tables import Table, show
from nl_plugins.engine import build_model, command_line, load_config
from nl_plugins.insertion.candidates import KINDS, Place


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/places.py '
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py --depth 2',
    )
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument(
        '--depth',
        type=int,
        default=3,
        help='parts of the longest paths of modules (default: 3)',
    )
    parser.add_argument(
        '--block',
        choices=KINDS,
        default='nl',
        help='non-local or disentangled non-local, with its defaults (default: nl)',
    )
    command_line.add_shape_argument(parser)
    return parser.parse_args()


def row(place: Place, names: set[str], reasons: list[str]) -> list[str]:
    shape = ' x '.join(map(str, place.shape[1:])) if place.shape else ''
    parent, _, name = place.name.rpartition('.')
    # A module whose forward is called directly has no row, but its children have.
    name = '. ' * place.name.count('.') + name if parent in names else place.name
    cells = [name, place.module_type, shape]
    if place.obstacle:
        return [*cells, f'none ({reasons.index(place.obstacle) + 1})', '', '', '']
    return [
        *cells,
        place.block,
        f'{place.parameters / 1e6:.3g} M',
        f'{place.flops / 1e9:.3g} G',
        f'{place.stored / 2**20:.3g} MiB',
    ]


def main() -> None:
    args = parse_args()
    with command_line.report_errors():
        cfg = load_config(args.config)
        shape = input_shape(cfg, args.shape)
        model = build_model(cfg)
        example = example_input(cfg, model, shape)
        found = nl_plugins.places(model, example, args.block, args.depth)
    names = {place.name for place in found}
    reasons = list(dict.fromkeys(place.obstacle for place in found if place.obstacle))
    head = ['after', 'module', 'output', 'block', 'parameters', 'FLOPs']
    show(
        Table(
            f'Places at {" x ".join(map(str, shape))}, batch 1',
            [*head, 'stored for backward'],
            [row(place, names, reasons) for place in found],
        ),
        *(f'({number}) {reason}' for number, reason in enumerate(reasons, 1)),
    )


if __name__ == '__main__':
    main()
