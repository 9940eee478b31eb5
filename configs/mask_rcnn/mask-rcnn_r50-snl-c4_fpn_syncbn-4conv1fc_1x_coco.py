_base_ = './mask-rcnn_r50_fpn_syncbn-4conv1fc_1x_coco.py'
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=[
            # The unary term alone: one context for all positions.
            dict(
                type='nl_plugins.DisentangledNonLocal2d',
                terms=('unary',),
                output_layer=False,
                projection_cfg=dict(value=dict(bias=False)),
                before='layer3.-1',
            )
        ],
    )
)
