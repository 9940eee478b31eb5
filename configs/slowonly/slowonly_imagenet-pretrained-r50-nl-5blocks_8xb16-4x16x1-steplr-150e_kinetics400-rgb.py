_base_ = (
    'mmaction::recognition/slowonly/'
    'slowonly_imagenet-pretrained-r50'
    '_8xb16-4x16x1-steplr-150e_kinetics400-rgb.py'
)
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3dSlowOnly',
        blocks=[
            dict(
                type='nl_plugins.NonLocal3d',
                sub_sample='before',
                norm_cfg=dict(type='BN3d'),
                after=['layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5'],
            )
        ],
    )
)
