_base_ = (
    'mmaction::recognition/tsm/'
    'tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb.py'
)
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNetTSM',
        blocks=[
            dict(
                type='nl_plugins.NonLocal3d',
                num_frames=8,
                sub_sample='before',
                norm_cfg=dict(type='BN3d'),
                after=['layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5'],
            )
        ],
    )
)
