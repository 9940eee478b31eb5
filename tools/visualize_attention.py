"""Plot what a block of a trained model attends to in an image or video.

Also what the block changes in the prediction. For any detector, segmentor or
recognizer with a non-local block of this package or of upstream.
"""

import argparse
from pathlib import Path

from nl_plugins.engine import command_line
from nl_plugins.visualization.attention import build_visualizer, plot_attention
from nl_plugins.visualization.records import choose_block, find_blocks
from nl_plugins.visualization.samples import load_model, sample_from_file


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/visualize_attention.py '
        'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py \\\n'
        '    epoch_12.pth image.jpg --point 320 240',
    )
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument('checkpoint', help='path or URL of a checkpoint')
    parser.add_argument('file', metavar='IMAGE_OR_VIDEO')
    parser.add_argument(
        '--point',
        nargs=2,
        type=float,
        action='append',
        default=[],
        dest='points',
        metavar=('X', 'Y'),
        help='look from this column and row of the image, or of the frames '
        'of a video as the model sees them; repeat it for more (default: the '
        'centres of the detections with the highest scores, or a grid)',
    )
    parser.add_argument(
        '--block',
        metavar='NAME',
        help='name of the block in the model (default: the last one)',
    )
    parser.add_argument(
        '--show-dir',
        type=Path,
        metavar='DIR',
        help="where the backends of the config's visualizer write (default: "
        './work_dirs/<name of the config>/attention)',
    )
    parser.add_argument('--device', type=command_line.device, default='cpu')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with command_line.report_errors():
        model = load_model(args.config, args.checkpoint, args.device)
        name, _ = choose_block(model, args.block)
        folder = args.show_dir or Path('work_dirs', Path(args.config).stem, 'attention')
        command_line.make_folder(folder)
        data = sample_from_file(model.cfg, args.file)
        visualizer = build_visualizer(model.cfg, str(folder), model.dataset_meta)
        lines = plot_attention(
            model,
            data,
            visualizer,
            Path(args.file).stem,
            [tuple(point) for point in args.points],
            name,
        )
        visualizer.close()
    others = [other for other in find_blocks(model) if other != name]
    print(f'block: {name}' + (f' (others: {", ".join(others)})' if others else ''))
    print('\n'.join(lines))
    print(f'pictures: {folder}')


if __name__ == '__main__':
    main()
