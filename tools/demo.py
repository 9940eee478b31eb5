"""Train, evaluate and compare small models on generated data."""

import argparse
import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from demo import detection, report, segmentation, video
from demo.report import DETECTION, SEGMENTATION, VIDEO
from mmengine.runner import find_latest_checkpoint
from torch import nn

from nl_plugins.analysis.comparison.runs import Run
from nl_plugins.toolboxes import Metric
from nl_plugins.visualization.attention_maps import draw_attention
from nl_plugins.visualization.clips import draw_clip_attention
from nl_plugins.visualization.predictions import draw_predictions

# Of a line of the training log: where it is, how long it will take, the loss;
# of an evaluation, the metrics.
PROGRESS = re.compile(
    r'((?:Epoch|Iter)\(train\).*?\]) .*(eta.*time: [\d.]*)'
    r' .*( loss: [\d.]*)'
    r'|((?:Epoch|Iter)\(val\).*?\]) .*'
    r'(?:(bbox_mAP: \S*).*(segm_mAP: \S*)|(mIoU: \S*)'
    r'|(acc/top1: \S*))'
)
ROOT = Path(__file__).resolve().parents[1]
DET_CONFIGS = {
    'Mask R-CNN': 'configs/demo/mask-rcnn_r18-2stages_fpn_demo.py',
    '+ NonLocal2d': 'configs/demo/mask-rcnn_r18-2stages-nl-c3_fpn_demo.py',
    '+ DisentangledNonLocal2d': 'configs/demo/mask-rcnn_r18-2stages-dnl-c3_fpn_demo.py',
}

SEG_CONFIGS = {
    'FCN': 'configs/demo/fcn_r18-2stages_demo.py',
    'non-local head': 'configs/demo/nonlocal_r18-2stages_demo.py',
    'disentangled non-local head': 'configs/demo/dnl_r18-2stages_demo.py',
}
VIDEO_CONFIGS = {
    'C2D': 'configs/demo/c2d_r18-2stages_demo.py',
    '+ NonLocal3d in space': 'configs/demo/c2d_r18-2stages-nl-c3-space_demo.py',
    '+ NonLocal3d in time': 'configs/demo/c2d_r18-2stages-nl-c3-time_demo.py',
    '+ NonLocal3d': 'configs/demo/c2d_r18-2stages-nl-c3_demo.py',
    '+ DisentangledNonLocal3d': 'configs/demo/c2d_r18-2stages-dnl-c3_demo.py',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'task',
        nargs='?',
        choices=['det', 'seg', 'video', 'all'],
        default='det',
        help='det: instance segmentation with Mask R-CNN (default); seg: '
        'semantic segmentation with FCN; video: recognition with a frame-wise '
        'network; all: one after the other',
    )
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=int,
        default=[0],
        metavar='SEED',
        help='train every model once per seed and report mean and standard '
        'deviation (default: 0)',
    )
    args = parser.parse_args()
    if min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        parser.error(
            '--seeds must be different integers of at least 0, but '
            f'got {" ".join(map(str, args.seeds))}'
        )
    return args


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done and how long it took, as tools/lib.sh does."""
    start = time.monotonic()
    print(f'== {what}', flush=True)
    yield
    print(f'   took {time.monotonic() - start:.0f} s', flush=True)


def train(config: str, seed: int, work_dir: Path) -> Run:
    """Run tools/train.py and show the progress lines of its log."""
    command = [
        'tools/train.py',
        config,
        '--work-dir',
        str(work_dir),
        '--cfg-options',
        f'randomness.seed={seed}',
    ]
    print(f'   $ python {shlex.join(command)}', flush=True)
    last_lines = deque(maxlen=30)
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            last_lines.append(line)
            progress = PROGRESS.search(line)
            if progress:
                print('  ', *filter(None, progress.groups()), flush=True)
    if process.returncode:
        sys.exit(
            ''.join(last_lines) + f'error: {command[0]} ended with '
            f'exit status {process.returncode}; its output is above'
        )
    return report.read_run(work_dir)


def compare(
    configs: dict[str, str],
    seeds: list[int],
    results: Path,
    load: Callable[..., nn.Module],
    queries: list,
    draw: Callable[..., None],
    metrics: Sequence[Metric],
    loss: str,
) -> dict[str, nn.Module]:
    """Train every model once for each seed, and show what came out.

    Returns the models of the last seed, by name.
    """
    models, trained = [], {}
    for name, config in configs.items():
        runs = []
        for seed in seeds:
            work_dir = results / Path(config).stem / f'seed{seed}'
            with step(f'{name}, seed {seed}'):
                runs.append(train(config, seed, work_dir))
        # the last seed's model stands for all in the picture
        trained[name] = load(config, find_latest_checkpoint(work_dir), device='cpu')
        parameters = sum(p.numel() for p in trained[name].parameters())
        models.append(report.Model(name, parameters, runs))

    with step('Pictures'):
        report.draw_curves(models, results / 'curves.png', loss, metrics[-1])
        _, *with_block = trained.items()
        draw(dict(with_block), queries, results / 'attention.png')
    table = report.format_table(models, metrics) + '\n'
    (results / 'results.md').write_text(table)
    print(f'== Results\n{table}\n{report.format_gains(models, metrics)}')
    for name in ('results.md', 'curves.png', 'attention.png'):
        print(f'   {results / name}')
    return trained


def demonstrate_detection(seeds: list[int]) -> None:
    """Compare Mask R-CNN without and with blocks."""
    from mmdet.apis import init_detector

    data = Path('data/demo')
    with step(f'Data set in {data}'):
        detection.generate_dataset(data)
    compare(
        DET_CONFIGS,
        seeds,
        Path('work_dirs/demo'),
        init_detector,
        detection.find_queries(data),
        draw_attention,
        DETECTION,
        'loss_cls',
    )


def demonstrate_segmentation(seeds: list[int]) -> None:
    """Compare FCN with the same head with a block in it."""
    from mmseg.apis import init_model

    data = Path('data/demo_seg')
    with step(f'Data set in {data}'):
        segmentation.generate_dataset(data)
    results = Path('work_dirs/demo_seg')
    trained = compare(
        SEG_CONFIGS,
        seeds,
        results,
        init_model,
        segmentation.find_queries(data),
        draw_attention,
        SEGMENTATION,
        'decode.loss_ce',
    )
    draw_predictions(trained, range(3), results / 'predictions.png')
    print(f'   {results / "predictions.png"}')


def demonstrate_video(seeds: list[int]) -> None:
    """Compare a frame-wise network with the same network with a block."""
    from mmaction.apis import init_recognizer

    data = Path('data/demo_video')
    with step(f'Data set in {data}'):
        video.generate_dataset(data)
    compare(
        VIDEO_CONFIGS,
        seeds,
        Path('work_dirs/demo_video'),
        init_recognizer,
        video.find_queries(data),
        draw_clip_attention,
        VIDEO,
        'loss_cls',
    )


def main() -> None:
    args = parse_args()
    # configs name their data relative to the repository
    os.chdir(ROOT)
    start = time.monotonic()
    if args.task in ('det', 'all'):
        demonstrate_detection(args.seeds)
    if args.task in ('seg', 'all'):
        demonstrate_segmentation(args.seeds)
    if args.task in ('video', 'all'):
        demonstrate_video(args.seeds)
    print(f'   all in {(time.monotonic() - start) / 60:.1f} min')


if __name__ == '__main__':
    main()
