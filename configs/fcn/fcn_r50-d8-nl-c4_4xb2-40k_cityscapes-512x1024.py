_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNetV1c',
        blocks=[
            dict(
                type='nl_plugins.NonLocal2d',
                # as behind the output convolution of MMSegmentation's heads
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                before='layer3.-1',
            )
        ],
    )
)
