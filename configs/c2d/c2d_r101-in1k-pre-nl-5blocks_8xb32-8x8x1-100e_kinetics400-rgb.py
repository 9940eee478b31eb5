_base_ = './c2d_r101-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='C2D',
        blocks=[
            dict(
                type='nl_plugins.NonLocal3d',
                num_frames=4,
                sub_sample='before',
                norm_cfg=dict(type='BN3d'),
                after=['layer2.1', 'layer2.3', 'layer3.6', 'layer3.13', 'layer3.20'],
            )
        ],
    )
)
