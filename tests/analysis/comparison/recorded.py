"""Work directories as the runner leaves them."""

import json

CONFIG = """
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr={lr}))
randomness = dict(seed={seed})
resume = {resume}
work_dir = '{work_dir}'
"""


def train_records(epochs, value, time=0.5):
    """Two records of an epoch of four iterations, and an evaluation."""
    for epoch in epochs:
        for i in (2, 4):
            step = 4 * (epoch - 1) + i
            yield dict(
                loss=2 / step,
                loss_cls=1 / step,
                time=time,
                epoch=epoch,
                iter=step,
                step=step,
            )
        yield {'coco/bbox_mAP': value * epoch, 'time': 99.0, 'step': epoch}


def write_run(
    work_dir,
    records,
    name='model',
    stamp='20250101_000000',
    seed=0,
    lr=0.1,
    resume=False,
):
    """Write the records of a training and its config."""
    folder = work_dir / stamp / 'vis_data'
    folder.mkdir(parents=True)
    text = CONFIG.format(lr=lr, seed=seed, resume=resume, work_dir=work_dir)
    (folder / 'config.py').write_text(text)
    (work_dir / f'{name}.py').write_text(text)
    (folder / 'scalars.json').write_text(
        ''.join(json.dumps(record) + '\n' for record in records)
    )
    return folder
