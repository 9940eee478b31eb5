"""Plot what segmentors predict, side by side, and what their blocks attend to.

The images are those that the first model is tested on.
"""

import argparse
from pathlib import Path

from nl_plugins.engine import checks, command_line, load_config
from nl_plugins.errors import OptionError
from nl_plugins.visualization import predictions
from nl_plugins.visualization.attention import compare_attention
from nl_plugins.visualization.records import find_blocks
from nl_plugins.visualization.samples import load_model


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/visualize_segmentation.py --samples 0 1 --out pictures \\\n'
        '    --model FCN fcn.py fcn.pth --model NL nl.py nl.pth',
    )
    parser.add_argument(
        '--model',
        nargs=3,
        action='append',
        required=True,
        dest='models',
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='name in the picture, config and checkpoint of a segmentor; '
        'repeat it for each one',
    )
    parser.add_argument(
        '--samples',
        nargs='+',
        type=int,
        default=[0],
        metavar='N',
        help='numbers of the images in the dataset (default: 0)',
    )
    parser.add_argument(
        '--point',
        nargs=3,
        type=int,
        action='append',
        default=[],
        dest='points',
        metavar=('N', 'X', 'Y'),
        help='also plot the attention of each block, seen from this column '
        'and row of this image; repeat it for more',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help='write predictions.png and attention.png there',
    )
    parser.add_argument('--device', type=command_line.device, default='cpu')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    names = [name for name, _, _ in args.models]
    with command_line.report_errors():
        if len(set(names)) < len(names):
            raise OptionError(
                'each --model needs a name of its own, but got ' + ', '.join(names)
            )
        for _, config, _ in args.models:
            checks.check_datasets(load_config(config), 'test')
        models = {
            name: load_model(config, checkpoint, args.device)
            for name, config, checkpoint in args.models
        }
        dataset = predictions.dataset_of(models[names[0]])
        predictions.check_samples(
            dataset, [*args.samples, *(n for n, _, _ in args.points)]
        )
        command_line.make_folder(args.out)
        written = [args.out / 'predictions.png']
        predictions.plot_predictions(models, args.samples, written[0])
        if args.points:
            with_block = {
                name: model for name, model in models.items() if find_blocks(model)
            }
            queries = [
                (dataset.get_data_info(n)['img_path'], (x, y))
                for n, x, y in args.points
            ]
            written.append(args.out / 'attention.png')
            # without any, the error says that there is none
            compare_attention(with_block or models, queries, written[1])
        command_line.report_written(*written)


if __name__ == '__main__':
    main()
