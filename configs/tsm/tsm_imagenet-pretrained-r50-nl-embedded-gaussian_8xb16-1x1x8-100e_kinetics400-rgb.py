# MMAction2's own non-local TSM: 100 epochs, and its blocks and places
_base_ = (
    'mmaction::recognition/tsm/'
    'tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb.py'
)
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
train_cfg = dict(max_epochs=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=10),
    dict(
        type='MultiStepLR',
        begin=0,
        end=100,
        by_epoch=True,
        milestones=[50, 90],
        gamma=0.1,
    ),
]
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNetTSM',
        blocks=[
            dict(
                type='nl_plugins.NonLocal3d',
                num_frames=8,
                sub_sample=True,
                use_scale=False,
                norm_cfg=dict(type='BN3d'),
                after=['layer2.0', 'layer2.2', 'layer3.0', 'layer3.2', 'layer3.4'],
            )
        ],
    )
)
