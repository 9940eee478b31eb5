"""Time and memory of the blocks, side by side with upstream's."""

import argparse
import os
import platform
from pathlib import Path

import mmcv
import torch

from nl_plugins.analysis.benchmark.backends import compare_backends
from nl_plugins.analysis.benchmark.measure import BLOCKS, DTYPES, Case, compare
from nl_plugins.analysis.benchmark.output import plot, to_tables, write_records
from nl_plugins.analysis.progress import progress
from nl_plugins.analysis.tables import show, to_markdown
from nl_plugins.engine import command_line

#: Options by the name of a preset.
PRESETS = dict(
    readme=dict(
        sizes=[(14, 14), (28, 28), (32, 64), (64, 128), (128, 256)],
        channels=[128, 512, 1024, 2048],
        dtypes=['fp32', 'tf32', 'bf16', 'fp16'],
        repeats=9,
        out=Path('work_dirs/benchmark'),
    )
)


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/benchmark.py --preset readme',
    )
    parser.add_argument('--blocks', nargs='+', choices=BLOCKS, default=BLOCKS)
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=command_line.sizes,
        default=[(64, 128)],
        metavar='HxW',
        help='size of the input: L, HxW or TxHxW (default: 64x128)',
    )
    parser.add_argument(
        '--channels', nargs='+', type=int, default=[512], help='of the input'
    )
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument(
        '--sub-sample',
        action='store_true',
        help='pool key and value by 2 in each direction of space',
    )
    parser.add_argument(
        '--passes',
        nargs='+',
        choices=('training', 'inference'),
        default=('training', 'inference'),
        help='forward and backward, or forward alone (default: both)',
    )
    parser.add_argument(
        '--dtypes',
        nargs='+',
        choices=DTYPES,
        default=('fp32',),
        help='tf32: fp32 with the faster products of GPUs; bf16 and fp16 with '
        'autocast (default: fp32)',
    )
    parser.add_argument('--device', default=command_line.default_device())
    parser.add_argument(
        '--preset',
        choices=PRESETS,
        help='blocks, sizes, channels and types of the tables of the documentation',
    )
    parser.add_argument('--repeats', type=int, default=5, help='timed turns of each')
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='write benchmark.md, benchmark.csv and benchmark.png there',
    )
    parser.add_argument(
        '--backends',
        '--forms',
        action='store_true',
        help='compare the backends of the attention with each other instead',
    )
    args = parser.parse_args()
    if args.preset:  # options on the command line come before it
        parser.set_defaults(**PRESETS[args.preset])
        args = parser.parse_args()
    return args


def main() -> None:
    args = parse_args()
    device = (
        torch.cuda.get_device_name()
        if args.device.startswith('cuda')
        else f'{os.cpu_count()} CPU cores, {platform.machine()}'
    )
    machine = (
        f'{device}; Python {platform.python_version()}, '
        f'PyTorch {torch.__version__}, mmcv {mmcv.__version__}'
    )
    print(machine + '\n')
    if args.backends:
        phases = args.passes
        show(*compare_backends(args.device, args.dtypes, phases, args.repeats))
        return
    cases = [
        Case(
            block,
            shape,
            channels,
            which == 'training',
            args.device,
            dtype,
            args.batch,
            args.sub_sample,
        )
        for which in args.passes
        for dtype in args.dtypes
        for channels in args.channels
        for shape in args.sizes
        for block in args.blocks
    ]
    results = {}
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    with progress(len(cases)) as tell:
        for case in cases:
            tell(f'{case.block} {case.size_text} {case.dtype} {case.phase}')
            results[case] = compare(case, args.repeats)
            if args.out:  # after each: it may take an hour
                text = to_markdown(machine, *to_tables(results))
                (args.out / 'benchmark.md').write_text(text)
                write_records(results, args.out / 'benchmark.csv')
    show(*to_tables(results))
    if args.out:
        plot(results, args.out / 'benchmark.png')
        names = ('benchmark.md', 'benchmark.csv', 'benchmark.png')
        command_line.report_written(*(args.out / name for name in names))


if __name__ == '__main__':
    main()
