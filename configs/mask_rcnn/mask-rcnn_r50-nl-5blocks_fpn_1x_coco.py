_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=[
            # After every other residual block of res3 and res4.
            dict(
                type='nl_plugins.NonLocal2d',
                after=['layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5'],
            )
        ],
    )
)
