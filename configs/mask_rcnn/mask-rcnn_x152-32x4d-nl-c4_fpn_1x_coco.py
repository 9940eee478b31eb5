_base_ = './mask-rcnn_x152-32x4d_fpn_1x_coco.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNeXt',
        blocks=[dict(type='nl_plugins.NonLocal2d', before='layer3.-1')],
    )
)
