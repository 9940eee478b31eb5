"""Test a model of one of OpenMMLab's toolboxes."""

import argparse
import os

from mmengine.logging import MMLogger

from nl_plugins import engine
from nl_plugins.engine import command_line


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/test.py '
        'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py \\\n'
        '    work_dirs/mask-rcnn_r50-nl-c4_fpn_1x_coco/epoch_12.pth --show-dir shown',
    )
    parser.add_argument(
        'config',
        help='path of a config, or its name in a toolbox, such as '
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    )
    parser.add_argument('checkpoint', help='path or URL of a checkpoint')
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='keep the predictions for evaluation offline: a pickle file for '
        'detection and video (.pkl), a folder of PNG label maps for '
        'segmentation',
    )
    parser.add_argument(
        '--show',
        action='store_true',
        help='show every prediction in a window (not for video)',
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='paint every prediction into this folder (not for video)',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        metavar='SECONDS',
        help='how long --show shows a picture (default: 2)',
    )
    parser.add_argument('--tta', action='store_true', help='use test time augmentation')
    parser.add_argument(
        '--upgrade',
        action='store_true',
        help="replace upstream's non-local blocks by those of nl_plugins: "
        'same results, a fraction of the memory',
    )
    command_line.add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    with command_line.report_errors():
        cfg = engine.load_config(
            args.config, args.cfg_options, args.work_dir, args.launcher
        )
        if args.data_root:
            engine.set_data_root(cfg, args.data_root)
        engine.test(
            cfg,
            args.checkpoint,
            args.out,
            args.show,
            args.show_dir,
            args.wait_time,
            args.tta,
            args.upgrade,
        )
    log = MMLogger.get_current_instance().log_file
    command_line.report_written(log, args.out, args.show_dir)


if __name__ == '__main__':
    main()
