_base_ = './mask-rcnn_r50_fpn_syncbn-4conv1fc_1x_coco.py'
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=[dict(type='ContextBlock', ratio=1.0 / 4, before='layer3.-1')],
    )
)
