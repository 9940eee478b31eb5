_base_ = (
    'mmaction::recognition/c2d/c2d_r50-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb.py'
)
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
                before='layer4.-1',
            )
        ],
    )
)
