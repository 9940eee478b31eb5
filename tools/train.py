"""Train a model of one of OpenMMLab's toolboxes."""

import argparse
import os

from mmengine.logging import MMLogger
from mmengine.runner import find_latest_checkpoint

from nl_plugins import engine
from nl_plugins.engine import command_line


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/train.py '
        'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py \\\n'
        '    --data-root /datasets/coco --resume',
    )
    parser.add_argument(
        'config',
        help='path of a config, or its name in a toolbox, such as '
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='resume from this checkpoint; without PATH, from the latest one '
        'in the work directory, or from the start if there is none',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train with automatic mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the ratio of the batch size to '
        'auto_scale_lr.base_batch_size of the config',
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
        engine.train(cfg, args.resume, args.amp, args.auto_scale_lr)
    command_line.report_written(
        find_latest_checkpoint(cfg.work_dir), MMLogger.get_current_instance().log_file
    )


if __name__ == '__main__':
    main()
