_base_ = './c2d_r50-in1k-pre_8xb8-32x2x1-100e_kinetics400-rgb.py'
model = dict(
    backbone=dict(
        blocks=dict(
            nl=dict(
                type='nl_plugins.NonLocal3d',
                axes='time',
                norm_cfg=dict(type='BN3d'),
                after=['layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5'],
            )
        )
    )
)
