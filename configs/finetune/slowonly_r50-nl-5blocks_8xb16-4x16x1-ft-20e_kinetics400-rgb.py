_base_ = './slowonly_r50_8xb16-4x16x1-ft-20e_kinetics400-rgb.py'
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
# Blocks start untrained: ten times the learning rate of the trained layers.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'_block.': dict(lr_mult=10.0)}))
