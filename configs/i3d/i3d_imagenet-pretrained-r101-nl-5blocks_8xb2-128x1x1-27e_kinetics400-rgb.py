# as in the paper's video code: groups of four frames in res3, no norm in the
# blocks, whose output layers start at zero
_base_ = './i3d_imagenet-pretrained-r101_8xb2-128x1x1-27e_kinetics400-rgb.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3d',
        blocks=[
            dict(
                type='nl_plugins.NonLocal3d',
                group_size=4,
                sub_sample='before',
                after=['layer2.1', 'layer2.3'],
            ),
            dict(
                type='nl_plugins.NonLocal3d',
                sub_sample='before',
                after=['layer3.6', 'layer3.13', 'layer3.20'],
            ),
        ],
    )
)
