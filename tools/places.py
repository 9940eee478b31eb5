"""Where a block can be inserted into a model, and what it would cost there."""

import argparse

import torch

import nl_plugins
from nl_plugins.analysis.complexity import input_shape
from nl_plugins.analysis.tables import Table, show
from nl_plugins.engine import build_model, command_line, load_config
from nl_plugins.insertion.candidates import KINDS, Place
from nl_plugins.toolboxes import toolbox_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
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


def row(place: Place) -> list[str]:
    shape = ' x '.join(map(str, place.shape[1:])) if place.shape else ''
    indent = '. ' * place.name.count('.')
    cells = [indent + place.name.rpartition('.')[2], place.module_type, shape]
    if place.obstacle:
        return [*cells, place.obstacle, '', '']
    return [
        *cells,
        place.block,
        f'{place.parameters / 1e6:.3g} M',
        f'{place.stored / 2**20:.3g} MiB',
    ]


def main() -> None:
    args = parse_args()
    with command_line.report_errors():
        cfg = load_config(args.config)
        toolbox = toolbox_of(cfg)
        shape = input_shape(cfg, args.shape)
        model = build_model(cfg)
        batch = toolbox.batch(model, shape, 1)
        example = dict(
            inputs=torch.zeros_like(torch.stack(batch['inputs']), dtype=torch.float32),
            data_samples=batch['data_samples'],
            mode='tensor',
            **toolbox.tensor_options,
        )
        found = nl_plugins.places(model, example, args.block, args.depth)
    head = ['after', 'module', 'output', 'block, or why not', 'parameters']
    show(
        Table(
            f'Places at {" x ".join(map(str, shape))}, batch 1',
            [*head, 'stored for backward'],
            [row(place) for place in found],
        )
    )


if __name__ == '__main__':
    main()
