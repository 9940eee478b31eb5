_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
# GCNet's places: in all residual blocks of res3 to res5, before the addition.
model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='ContextBlock', ratio=1.0 / 4),
                stages=(False, True, True, True),
                position='after_conv3',
            )
        ]
    )
)
