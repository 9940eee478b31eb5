"""The commands of the documentation, as printed, where a user runs them.

A folder has the datasets in the layout that the documentation names, and
TORCH_HOME the pretrained files under their published names. Only the length
of a run and the size of images are overridden.
"""

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import commands
import cv2
import hub
import numpy as np
import pytest
import tiny_coco
import torch

from nl_plugins.analysis.comparison.runs import find_runs
from nl_plugins.engine.config import build_model, load_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = 'README.md', 'docs/getting_started.md'
SIZE = 64


def printed(dataset: str) -> list[str]:
    """The commands that train or test on a dataset, in their order.

    Those with a placeholder, such as CHECKPOINT, are left out.
    """
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text().replace('\\\n', ' ')
        for block in re.findall(r'```shell\n(.*?)```', text, re.S):
            for line in block.splitlines():
                command = ' '.join(shlex.split(line, comments=True))
                if (
                    re.match(r'python tools/(train|test)\.py', command)
                    and dataset in command
                    and not re.search(r'\b[A-Z_]{4,}\b', command)
                ):
                    found.append(command)
    return list(dict.fromkeys(found))


def run(command: str, folder: Path, home: Path, **options: object) -> str:
    """Run a command in a folder; its output is shown when it fails.

    It is forked, except in a folder without results yet: there it is a process as
    a user starts it.
    """
    arguments = [
        f'{key.replace("__", ".")}={value}'.replace(' ', '')
        for key, value in options.items()
    ]
    python, tool, *words = [*shlex.split(command), '--cfg-options', *arguments]
    if (folder / 'work_dirs').exists():
        return commands.run(folder, Path(tool).name, *words, home=home)
    process = subprocess.run(
        [python, tool, *words],
        cwd=folder,
        env=os.environ
        | {
            'TORCH_HOME': str(home),
            'OMP_NUM_THREADS': '1',
            # python is that of the active environment
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


def work_dir(folder: Path, command: str) -> Path:
    return folder / 'work_dirs' / Path(shlex.split(command)[2]).stem


def assert_pretrained(checkpoint: Path, file: dict) -> None:
    """Check that a model has been trained from the weights of a file.

    Some steps move them; others would have another direction altogether.
    """
    state = torch.load(checkpoint)['state_dict']
    compared = 0
    for key, value in state.items():
        name = hub.published_name(key.removeprefix('backbone.'))
        if key.startswith('backbone.') and name in file and value.dim() > 3:
            value = value.sum(2) if value.dim() == 5 else value
            similarity = torch.cosine_similarity(
                value.flatten(), file[name].flatten(), dim=0
            )
            assert similarity > 0.7, f'{key}: {similarity}'
            compared += 1
    assert compared >= 53  # the convolutions of a ResNet-50


def block_of(checkpoint: Path) -> torch.Tensor:
    """The output layer of a block, which is zero in a new one."""
    state = torch.load(checkpoint)['state_dict']
    return next(
        value
        for key, value in state.items()
        if re.search(r'(non_local|dnl)_block\.conv_out\.(bn|conv)\.weight', key)
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """What a clone has beside the data."""
    for name in 'configs', 'tools':
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def noise(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.uint8)


def test_coco(folder, torch_home):
    tiny_coco.write(folder / 'data/coco', num_train=2)
    file = hub.write(torch_home, 'torchvision://resnet50')
    train, resume, test, baseline = printed('_coco.py')
    assert resume == f'{train} --resume' and 'mmdet::' in baseline
    size = {
        f'{split}_dataloader.dataset.pipeline.{i}.scale': (SIZE, SIZE)
        for split, i in (('train', 2), ('val', 1), ('test', 1))
    }
    for command in train, baseline:
        run(command, folder, torch_home, train_cfg__max_epochs=1, **size)
        assert_pretrained(work_dir(folder, command) / 'epoch_1.pth', file)
    trained = work_dir(folder, train)
    output = run(resume, folder, torch_home, train_cfg__max_epochs=2, **size)
    assert 'resumed epoch: 1' in output
    assert block_of(trained / 'epoch_2.pth').any()
    # the name of the last epoch of a whole training
    (trained / 'epoch_2.pth').rename(trained / 'epoch_12.pth')
    assert 'Epoch(test) [2/2]' in run(test, folder, torch_home, **size)


def test_fine_tuning_of_the_blocks_alone(folder, torch_home):
    (folder / 'work_dirs').mkdir()  # so that every command is forked
    tiny_coco.write(folder / 'data/coco', num_train=2)
    hub.write(torch_home, 'torchvision://resnet50')
    config = ROOT / 'configs/finetune/mask-rcnn_r50-nl-c4_fpn_ft-blocks-4e_coco.py'
    published = load_config(str(config)).load_from
    upstream = build_model(load_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'))
    file = hub.write(torch_home, published, upstream.state_dict())
    scale = (SIZE, SIZE)
    command = f'python tools/train.py configs/finetune/{config.name} --auto-scale-lr'
    output = run(
        command,
        folder,
        torch_home,
        train_cfg__max_epochs=1,
        train_dataloader__dataset__pipeline__2__scale=scale,
        val_dataloader__dataset__pipeline__1__scale=scale,
    )
    checkpoint = work_dir(folder, command) / 'epoch_1.pth'
    state = torch.load(checkpoint)['state_dict']
    # norms too: nothing but the block has changed
    assert all(torch.equal(state[key], value) for key, value in file.items())
    assert {key for key in state if key not in file} == {
        key for key in state if '.non_local_block.' in key
    }
    assert block_of(checkpoint).any()
    # the table of the blocks, with the learning rate as a multiple
    assert re.search(r'layer3\.5\.non_local_block .* yes +10 ', output), output
    # what a comparison finds in the log
    (run_,) = find_runs([folder / 'work_dirs'])
    assert run_.environment['mmdet'] == version('mmdet')
    assert run_.environment['GPU number'] == '1' and run_.length.endswith('1 epochs')


def test_cityscapes(folder, torch_home):
    (folder / 'work_dirs').mkdir()  # so that every command is forked
    for split in 'train', 'val':
        images, labels = (
            folder / 'data/cityscapes' / kind / split / 'city'
            for kind in ('leftImg8bit', 'gtFine')
        )
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for name in 'ab':
            cv2.imwrite(f'{images}/{name}_leftImg8bit.png', noise(SIZE, 2 * SIZE, 3))
            cv2.imwrite(
                f'{labels}/{name}_gtFine_labelTrainIds.png',
                noise(SIZE, 2 * SIZE, high=19),
            )
    file = hub.write(torch_home, 'open-mmlab://resnet50_v1c')
    (train,) = printed('cityscapes')
    size = {
        'model.data_preprocessor.size': (SIZE, SIZE),
        'train_dataloader.dataset.pipeline.2.scale': (2 * SIZE, SIZE),
        'train_dataloader.dataset.pipeline.3.crop_size': (SIZE, SIZE),
        'val_dataloader.dataset.pipeline.1.scale': (2 * SIZE, SIZE),
        'test_dataloader.dataset.pipeline.1.scale': (2 * SIZE, SIZE),
    }
    length = dict(train_cfg__val_interval=2, default_hooks__checkpoint__interval=2)
    run(train, folder, torch_home, train_cfg__max_iters=2, **length, **size)
    trained = work_dir(folder, train)
    assert_pretrained(trained / 'iter_2.pth', file)
    assert block_of(trained / 'iter_2.pth').any()
    output = run(
        f'{train} --resume',
        folder,
        torch_home,
        train_cfg__max_iters=4,
        **length,
        **size,
    )
    assert 'resumed epoch: 0, iter: 2' in output
    output = run(
        f'{train.replace("train.py", "test.py")} {trained}/iter_4.pth',
        folder,
        torch_home,
        **size,
    )
    assert 'mIoU' in output


def test_kinetics(folder, torch_home):
    (folder / 'work_dirs').mkdir()  # so that every command is forked
    pytest.importorskip('mmaction')
    data = folder / 'data/kinetics400'
    for split, number in ('train', 16), ('val', 2):
        (data / f'videos_{split}').mkdir(parents=True)
        writer = cv2.VideoWriter(
            f'{data}/videos_{split}/a.mp4',
            cv2.VideoWriter_fourcc(*'mp4v'),
            8,
            (SIZE, SIZE),
        )
        for frame in noise(70, SIZE, SIZE, 3):
            writer.write(frame)
        writer.release()
        (data / f'kinetics400_{split}_list_videos.txt').write_text(
            ''.join(f'a.mp4 {i}\n' for i in range(number))
        )
    file = hub.write(torch_home, 'torchvision://resnet50')
    (train,) = printed('kinetics400')
    cfg = load_config(str(ROOT / shlex.split(train)[2]))
    size = {}
    for split in 'train', 'val', 'test':
        key = f'{split}_dataloader.dataset.pipeline'
        for i, step in enumerate(cfg[f'{split}_dataloader'].dataset.pipeline):
            if 'scale' in step:
                size[f'{key}.{i}.scale'] = (32, 32)
            if 'crop_size' in step:
                size[f'{key}.{i}.crop_size'] = 32
    run(
        train,
        folder,
        torch_home,
        train_cfg__max_epochs=1,
        default_hooks__checkpoint__interval=1,
        **size,
    )
    trained = work_dir(folder, train)
    assert_pretrained(trained / 'epoch_1.pth', file)
    assert block_of(trained / 'epoch_1.pth').any()
    output = run(
        f'{train} --resume',
        folder,
        torch_home,
        train_cfg__max_epochs=2,
        default_hooks__checkpoint__interval=1,
        **size,
    )
    assert 'resumed epoch: 1' in output
    output = run(
        f'{train.replace("train.py", "test.py")} {trained}/epoch_2.pth',
        folder,
        torch_home,
        **size,
    )
    assert 'acc/top1' in output
