_base_ = './c2d_r18-2stages_demo.py'

model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3d',
        # warmer projections than the default, for a short schedule
        blocks=[
            dict(type='nl_plugins.NonLocal3d', after='layer2.0', axes='space', std=0.1)
        ],
    )
)
