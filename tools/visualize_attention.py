"""Plot what a block of a trained model attends to in an image or video.

Also what the block changes in the prediction. For any detector, segmentor,
recognizer, classifier or pose estimator with a non-local block of this package
or of upstream.
"""

import argparse
from pathlib import Path

from nl_plugins.engine import command_line
from nl_plugins.visualization.attention import build_visualizer, plot_attention
from nl_plugins.visualization.figures import SCALES
from nl_plugins.visualization.interactive import write_page
from nl_plugins.visualization.records import choose_block
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
        help='name of the block in the model (default: the last one that sees the '
        'whole image or clip; all are listed at the end)',
    )
    parser.add_argument(
        '--scale',
        choices=SCALES,
        default='max',
        help='what the colours span: max: 0 to the largest weight of each map; '
        'shared: of all maps of a figure; uniform: 0.1 to 10 times the mean, '
        'logarithmic, in every figure (default: max)',
    )
    parser.add_argument(
        '--format',
        nargs='+',
        choices=['pdf', 'svg', 'gif', 'mp4'],
        default=[],
        dest='formats',
        help='beside the PNG files write the figures to --show-dir in these formats, '
        'in the width of two columns of a paper; gif and mp4 show the frames of a '
        'video one after another',
    )
    parser.add_argument(
        '--html',
        action='store_true',
        help='also write a page to --show-dir that shows the maps of the pixel below '
        'the pointer, for every block, and the prediction without it',
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
        if args.block:
            choose_block(model, args.block)
        folder = args.show_dir or Path('work_dirs', Path(args.config).stem, 'attention')
        data = sample_from_file(model.cfg, args.file)
        command_line.make_folder(folder)
        name = Path(args.file).stem
        visualizer = build_visualizer(model.cfg, str(folder), model.dataset_meta)
        lines = plot_attention(
            model,
            data,
            visualizer,
            name,
            [tuple(point) for point in args.points],
            args.block,
            scale=args.scale,
            files=[folder / f'{name}.{suffix}' for suffix in args.formats],
        )
        if args.html:
            write_page(model, data, visualizer, folder / f'{name}.html')
            lines.append(f'page: {folder / name}.html')
        visualizer.close()
    print('\n'.join(lines))
    command_line.report_written(folder)


if __name__ == '__main__':
    main()
