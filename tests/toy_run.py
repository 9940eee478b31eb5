"""A run of a few lines: the checks need no detector."""

from pathlib import Path

import tiny_coco
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import nn

from nl_plugins.engine import config as loading

MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, features=1, head=True):
        super().__init__()
        self.backbone = nn.Linear(1, features)
        self.neck = nn.BatchNorm1d(features)
        if head:
            self.head = nn.Linear(features, 1)

    def forward(self, inputs, mode='tensor'):
        outputs = self.neck(self.backbone(torch.stack(inputs)))
        if mode == 'loss':
            return {'loss': self.head(outputs).square().mean()}
        return list(outputs.detach())


@DATASETS.register_module()
class ToyDataset(torch.utils.data.Dataset):
    def __init__(self, data_root='', ann_file='', data_prefix=None):
        pass

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'inputs': torch.full((1,), float(index))}


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return {'count': len(results)}


TOY = """
default_scope = 'mmengine'
model = dict(type='ToyModel')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ToyDataset'))
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=.01, momentum=.9))
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ToyDataset'))
test_cfg = dict()
test_evaluator = dict(type='ToyMetric')
"""


def coco(folder: Path, **kwargs) -> Config:
    options = tiny_coco.data_options(folder) | kwargs
    return loading.load_config(MASK_RCNN, options, str(folder.parent / 'work'))
