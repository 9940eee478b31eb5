_base_ = './td-hm_r18-2stages_demo.py'

model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        # warmer projections than the default, for a short schedule
        blocks=[dict(type='nl_plugins.NonLocal2d', after='layer2.0', std=0.1)],
    )
)
