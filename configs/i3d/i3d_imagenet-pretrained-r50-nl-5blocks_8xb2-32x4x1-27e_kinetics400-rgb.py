# as in the paper's video code: groups of four frames in res3, no norm in the
# blocks, whose output layers start at zero
_base_ = './i3d_imagenet-pretrained-r50_8xb2-32x4x1-27e_kinetics400-rgb.py'
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
                after=['layer3.1', 'layer3.3', 'layer3.5'],
            ),
        ],
    )
)
