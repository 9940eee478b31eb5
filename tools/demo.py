"""Look at a block on a photograph, then train and compare small models."""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from demo import detection, matching, photograph, segmentation, video
from mmengine.runner import find_latest_checkpoint

from nl_plugins.analysis.progress import progress
from nl_plugins.engine import command_line
from nl_plugins.visualization.attention import compare_attention
from nl_plugins.visualization.predictions import plot_predictions
from nl_plugins.visualization.records import find_blocks
from nl_plugins.visualization.samples import load_model

# Of a line of the training log: where it is, how long it will take, the loss;
# of an evaluation, the metrics.
PROGRESS = re.compile(
    r'((?:Epoch|Iter)\(train\).*?\]) .*(eta.*time: [\d.]*)'
    r' .*( loss: [\d.]*)'
    r'|((?:Epoch|Iter)\(val\).*?\]) .*'
    r'(?:(bbox_mAP: \S*).*(segm_mAP: \S*)|(mIoU: \S*)'
    r'|(acc(?:uracy)?/top1: \S*)|(coco/AP: \S*))'
)
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Task:
    """A generated task: its data, and the configs of which the first is the
    baseline."""

    name: str
    module: ModuleType
    data: Path
    shape: str
    configs: list[str]


def configs(pattern: str, *blocks: str) -> list[str]:
    return [f'configs/demo/{pattern.format(block)}_demo.py' for block in blocks]


DETECTION = Task(
    'Instance segmentation',
    detection,
    Path('data/demo'),
    '96x192',
    configs('mask-rcnn_r18-2stages{}_fpn', '', '-nl-c3', '-dnl-c3'),
)
SEGMENTATION = Task(
    'Semantic segmentation',
    segmentation,
    Path('data/demo_seg'),
    '96x192',
    configs('{}_r18-2stages', 'fcn', 'nonlocal', 'dnl'),
)
VIDEO = Task(
    'Recognition',
    video,
    Path('data/demo_video'),
    '4x64x128',
    configs(
        'c2d_r18-2stages{}', '', '-nl-c3-space', '-nl-c3-time', '-nl-c3', '-dnl-c3'
    ),
)
CLASSIFICATION = Task(
    'Classification',
    matching,
    Path('data/demo_cls'),
    '96x192',
    configs('resnet18-2stages{}', '', '-nl-c3', '-dnl-c3'),
)
POSE = replace(
    CLASSIFICATION,
    name='Pose estimation',
    data=Path('data/demo_pose'),
    configs=configs('td-hm_r18-2stages{}', '', '-nl-c3', '-dnl-c3'),
)
TASKS = dict(
    det=DETECTION, seg=SEGMENTATION, video=VIDEO, cls=CLASSIFICATION, pose=POSE
)
#: Their toolboxes are part of the default set-up.
ALL = ('det', 'seg', 'video')


def parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__,
        'python tools/demo.py seg --seeds 0 1 2',
    )
    parser.add_argument(
        'task',
        nargs='?',
        choices=[*TASKS, 'all'],
        default='det',
        help='det: instance segmentation with Mask R-CNN (default); seg: '
        'semantic segmentation with FCN; video: recognition with a frame-wise '
        'network; cls: classification with ResNet; pose: one keypoint with '
        'SimpleBaseline2D; all: the first three, one after the other',
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


def run(*command: str) -> None:
    """Run a tool of this folder and show the progress lines of its log."""
    print(f'   $ python {shlex.join(command)}', flush=True)
    last_lines: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            last_lines.append(line)
            found = PROGRESS.search(line)
            if found:
                print('  ', *filter(None, found.groups()), flush=True)
    if process.returncode:
        sys.exit(
            ''.join(last_lines) + f'error: {command[0]} ended with '
            f'exit status {process.returncode}; its output is above'
        )


def show(*command: str) -> None:
    """Run a tool of this folder and show its output."""
    print(f'   $ python {shlex.join(command)}', flush=True)
    status = subprocess.run([sys.executable, *command]).returncode
    if status:  # its error is above
        sys.exit(status)


def look_at_a_photograph() -> None:
    """Show in a minute where a block can stand, what it costs and what it does."""
    print('== First look: a block in Mask R-CNN, without training', flush=True)
    shape = ('--shape', photograph.SHAPE)
    show('tools/places.py', photograph.BASELINE, '--depth', '2', *shape)
    show('tools/complexity.py', photograph.BASELINE, photograph.WITH_BLOCK, *shape)
    for line in photograph.look(Path('work_dirs/demo_photograph/attention.png')):
        print(f'   {line}', flush=True)


def demonstrate(task: Task, seeds: list[int]) -> None:
    """Train every model of a task once for each seed, and compare them."""
    print(f'== {task.name}: dataset in {task.data}', flush=True)
    task.module.generate_dataset(task.data)
    queries = task.module.find_queries(task.data)
    results = Path('work_dirs', task.data.name)
    trainings = [(config, seed) for config in task.configs for seed in seeds]
    with progress(len(trainings)) as tell:
        for config, seed in trainings:
            tell(f'train {config}, seed {seed}')
            work_dir = results / Path(config).stem / f'seed{seed}'
            options = ['--cfg-options', f'randomness.seed={seed}']
            run('tools/train.py', config, '--work-dir', str(work_dir), *options)
    print('== Pictures of the last seed', flush=True)
    for config in task.configs:
        work_dir = results / Path(config).stem / f'seed{seeds[-1]}'
        model = load_model(config, find_latest_checkpoint(work_dir))
        if find_blocks(model):
            compare_attention({'block': model}, queries, work_dir / 'attention.png')
        if task is SEGMENTATION:
            path = work_dir / 'predictions.png'
            plot_predictions({'predicted': model}, range(3), path)
    print('== Comparison', flush=True)
    show(
        *('tools/compare.py', *task.configs[1:], '--baseline', task.configs[0]),
        *('--work-dirs', str(results), '--shape', task.shape, '--repeats', '0'),
        *('--out', str(results)),
    )


def main() -> None:
    args = parse_args()
    # configs name their data relative to the repository
    os.chdir(ROOT)
    start = time.monotonic()
    look_at_a_photograph()
    for name, task in TASKS.items():
        if name == args.task or (args.task == 'all' and name in ALL):
            demonstrate(task, args.seeds)
    print(f'   all in {(time.monotonic() - start) / 60:.1f} min')


if __name__ == '__main__':
    main()
