"""Convert a checkpoint to the model of another config.

Takes checkpoints of upstream's models with non-local blocks (non_local=), of
models with blocks of nl_plugins at the same places, and those that the code of
the papers wrote (docs/checkpoints.md). Nothing of that code is needed.
"""

import argparse
from pathlib import Path

import torch
from mmengine.config import DictAction

from nl_plugins.checkpoints.convert import convert
from nl_plugins.checkpoints.load import check_checkpoint_exists
from nl_plugins.checkpoints.releases import read_release
from nl_plugins.engine import build_model, command_line, load_config


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/convert_checkpoint.py I3D_NLN_8x8_R50.pkl \\\n'
        '    nl_plugins::i3d/i3d_imagenet-pretrained-r50-nl-5blocks_'
        '8xb8-8x8x1-100e_kinetics400-rgb.py \\\n'
        '    i3d_nl.pth',
    )
    parser.add_argument('checkpoint', help='path of what is converted')
    parser.add_argument('config', help='path or name of the config that it is for')
    parser.add_argument('out', type=Path, help='file to write')
    parser.add_argument(
        '--source',
        metavar='CONFIG',
        help='path or name of the config that the checkpoint was trained '
        'with; needed where blocks were placed with before=',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with command_line.report_errors():
        check_checkpoint_exists(args.checkpoint)
        target = build_model(load_config(args.config, args.cfg_options))
        source = build_model(load_config(args.source)) if args.source else None
        state_dict, meta, left_out = read_release(args.checkpoint)
        converted = convert(state_dict, target, source, args.checkpoint, args.config)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(meta=meta, state_dict=converted), args.out)
        parts = {key.split('.')[0] for key in converted}
        left_out += [key for key in state_dict if key.split('.')[0] not in parts]
        if left_out:
            print(
                f'left out ({len(left_out)}): {", ".join(left_out[:8])}'
                + (', ...' if len(left_out) > 8 else '')
            )
        command_line.report_written(f'{args.out} ({len(converted)} tensors)')


if __name__ == '__main__':
    main()
