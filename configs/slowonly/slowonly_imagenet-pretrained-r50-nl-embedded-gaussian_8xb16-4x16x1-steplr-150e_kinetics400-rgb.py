# MMAction2's own non-local SlowOnly: its rate, and its blocks and places
_base_ = (
    'mmaction::recognition/slowonly/'
    'slowonly_imagenet-pretrained-r50'
    '_8xb16-4x16x1-steplr-150e_kinetics400-rgb.py'
)
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
optim_wrapper = dict(optimizer=dict(lr=0.01))
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3dSlowOnly',
        blocks=[
            dict(
                type='nl_plugins.NonLocal3d',
                sub_sample=True,
                norm_cfg=dict(type='BN3d'),
                after=['layer2.0', 'layer2.2', 'layer3.0', 'layer3.2', 'layer3.4'],
            )
        ],
    )
)
