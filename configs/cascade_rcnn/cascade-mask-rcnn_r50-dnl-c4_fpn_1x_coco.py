_base_ = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=[
            dict(
                type='nl_plugins.DisentangledNonLocal2d',
                reduction=4,
                gate='scalar',
                before='layer3.-1',
            )
        ],
    )
)
