"""Time and memory of the blocks, side by side with upstream's."""
import argparse
import os
import platform

import mmcv
import torch

from nl_plugins.benchmark import BLOCKS, Case, compare, to_markdown


def size(text: str) -> tuple[int, int]:
    height, width = text.lower().split('x')
    return int(height), int(width)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--blocks', nargs='+', choices=BLOCKS, default=BLOCKS)
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=size,
        default=[(64, 128)],
        metavar='HxW',
        help='height and width of the input (default: 64x128)')
    parser.add_argument('--channels', type=int, default=512)
    parser.add_argument(
        '--inference',
        action='store_true',
        help='forward alone instead of forward and backward')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = (
        torch.cuda.get_device_name() if args.device.startswith('cuda') else
        f'{os.cpu_count()} CPU cores, {platform.machine()}')
    print(f'{device}; Python {platform.python_version()}, '
          f'PyTorch {torch.__version__}, mmcv {mmcv.__version__}\n')
    results = {}
    for shape in args.sizes:
        for block in args.blocks:
            case = Case(block, shape, args.channels, not args.inference,
                        args.device)
            print(f'{block} {shape[0]}x{shape[1]} ...', flush=True)
            results[case] = compare(case, args.repeats)
    print('\n' + to_markdown(results))


if __name__ == '__main__':
    main()
