_base_ = './fcn_r50-d8_4xb2-ft-10k_cityscapes-512x1024.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNetV1c',
        blocks=[dict(type='nl_plugins.DisentangledNonLocal2d', before='layer3.-1')],
    )
)
# Blocks start untrained: ten times the learning rate of the trained layers.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'_block.': dict(lr_mult=10.0)}))
