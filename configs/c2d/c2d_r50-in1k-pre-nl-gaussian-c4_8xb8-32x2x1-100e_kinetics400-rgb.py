_base_ = './c2d_r50-in1k-pre_8xb8-32x2x1-100e_kinetics400-rgb.py'
model = dict(
    backbone=dict(
        blocks=dict(
            nl=dict(
                type='nl_plugins.NonLocal3d',
                mode='gaussian',
                sub_sample='before',
                norm_cfg=dict(type='BN3d'),
                before='layer3.-1',
            )
        )
    )
)
