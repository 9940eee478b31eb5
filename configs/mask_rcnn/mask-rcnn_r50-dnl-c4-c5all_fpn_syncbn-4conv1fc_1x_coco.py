_base_ = './mask-rcnn_r50_fpn_syncbn-4conv1fc_1x_coco.py'
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=[
            dict(
                type='nl_plugins.DisentangledNonLocal2d',
                reduction=4,
                gate='scalar',
                projection_cfg=dict(value=dict(bias=False)),
                before='layer3.-1',
            ),
            dict(
                type='nl_plugins.DisentangledNonLocal2d',
                reduction=4,
                gate='scalar',
                projection_cfg=dict(value=dict(bias=False)),
                after=['layer4.0', 'layer4.1', 'layer4.2'],
            ),
        ],
    )
)
