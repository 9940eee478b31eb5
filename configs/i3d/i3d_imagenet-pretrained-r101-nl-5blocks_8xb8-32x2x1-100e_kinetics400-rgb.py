_base_ = './i3d_imagenet-pretrained-r101_8xb8-32x2x1-100e_kinetics400-rgb.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3d',
        blocks=[
            dict(
                type='nl_plugins.NonLocal3d',
                sub_sample='before',
                norm_cfg=dict(type='BN3d'),
                after=['layer2.1', 'layer2.3', 'layer3.6', 'layer3.13', 'layer3.20'],
            )
        ],
    )
)
