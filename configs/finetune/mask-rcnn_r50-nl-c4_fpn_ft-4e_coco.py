_base_ = './mask-rcnn_r50_fpn_ft-4e_coco.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=[dict(type='nl_plugins.NonLocal2d', before='layer3.-1')],
    )
)
# Blocks start untrained: ten times the learning rate of the trained layers.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'_block.': dict(lr_mult=10.0)}))
