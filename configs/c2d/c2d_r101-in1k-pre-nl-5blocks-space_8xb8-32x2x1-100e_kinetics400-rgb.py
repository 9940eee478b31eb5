_base_ = './c2d_r101-in1k-pre_8xb8-32x2x1-100e_kinetics400-rgb.py'
model = dict(
    backbone=dict(
        blocks=dict(
            nl=dict(
                type='nl_plugins.NonLocal3d',
                axes='space',
                sub_sample='before',
                norm_cfg=dict(type='BN3d'),
                after=['layer2.1', 'layer2.3', 'layer3.6', 'layer3.13', 'layer3.20'],
            )
        )
    )
)
