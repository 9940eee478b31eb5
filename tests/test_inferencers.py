"""The examples of docs/inference.md, as they stand there, on small models."""

import contextlib
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, init_default_scope

from nl_plugins.engine.config import load_config

pytestmark = [
    pytest.mark.slow,
    # Of upstream, about what the examples leave out.
    pytest.mark.filterwarnings('ignore::UserWarning'),
]

ROOT = Path(__file__).parents[1]
# by the title of their section
EXAMPLES = {
    section.partition('\n')[0]: example
    for section in (ROOT / 'docs/inference.md').read_text().split('\n## ')
    for example in re.findall('```python\n(.*?)```', section, re.DOTALL)
}
SMALL = {
    'DetInferencer': 'mask-rcnn_r18-2stages-nl-c3_fpn_demo.py',
    'MMSegInferencer': 'dnl_r18-2stages_demo.py',
    'MMAction2Inferencer': 'c2d_r18-2stages-nl-c3_demo.py',
}


def run(title: str) -> tuple[dict, list[str]]:
    """Run an example; returns its variables, and the lines it prints.

    The files of configs and checkpoints that it names are small ones.
    """
    example = EXAMPLES[title]
    kind = re.search(r'import (\w+Inferencer)', example)[1]
    cfg = load_config(f'nl_plugins::demo/{SMALL[kind]}')
    if kind == 'DetInferencer':
        cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=3)
    for config in re.findall(r"'(configs/\S*\.py)'", example):
        assert (ROOT / config).is_file()
        Path(config).parent.mkdir(parents=True)
        cfg.dump(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for weights in re.findall(r"'(\S*\.pth)'", example):
        Path(weights).parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            dict(
                state_dict=model.state_dict(),
                # of a run, whose checkpoints hold no plain values alone
                message_hub=dict(
                    runtime_info=dict(cfg=cfg.pretty_text),
                    log_scalars=dict(loss=HistoryBuffer([1.0], [1])),
                ),
            ),
            weights,
        )
    variables, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example, variables)
    return variables, printed.getvalue().splitlines()


@pytest.fixture(autouse=True)
def inputs(tmp_path, monkeypatch):
    """Noise, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), dtype=np.uint8)
    cv2.imwrite('image.jpg', frames[0])
    cv2.imwrite('street.png', frames[0])
    video = cv2.VideoWriter('video.mp4', cv2.VideoWriter_fourcc(*'mp4v'), 8, (64, 48))
    for frame in frames:
        video.write(frame)
    video.release()


def has_blocks(model: torch.nn.Module) -> bool:
    return any(
        type(module).__module__.startswith('nl_plugins.blocks')
        for module in model.modules()
    )


def test_detection():
    variables, printed = run('Detection and instance segmentation')
    assert has_blocks(variables['inferencer'].model)
    instances = variables['instances']
    assert len(instances['labels']) == 3
    assert instances['masks'][0]['size'] == [48, 64]
    name, score, *box = printed[-1].split(maxsplit=2)
    assert name in CocoDataset.METAINFO['classes']
    assert Path('predicted/vis/image.jpg').exists()


def test_segmentation():
    variables, printed = run('Semantic segmentation')
    assert has_blocks(variables['inferencer'].model)
    assert printed[-1] == '(48, 64)'
    written = cv2.imread('predicted/pred/00000000_pred.png', -1)
    assert (written == variables['labels']).all()
    assert Path('predicted/vis/street.png').exists()


def test_action_recognition():
    pytest.importorskip('mmaction')
    variables, printed = run('Action recognition')
    assert has_blocks(variables['inferencer'].actionrecog_inferencer.model)
    first, second = variables['scores']
    assert first + second == pytest.approx(1)
    assert printed[-1] == str(int(second > first))


def test_config_by_its_name():
    inferencer = run('Without a clone')[0]['inferencer']
    assert has_blocks(inferencer.model)
    assert inferencer.cfg.model.test_cfg.rcnn.score_thr == 0.3


def test_checkpoint_alone():
    inferencer = run('From a checkpoint alone')[0]['inferencer']
    assert has_blocks(inferencer.model)
    assert inferencer.cfg.model.test_cfg.rcnn.max_per_img == 3


def test_upgrade():
    variables, printed = run("Upstream's models in less memory")
    assert has_blocks(variables['inferencer'].model)
    assert printed[-1] == '1'
