_base_ = './c2d_r18-2stages_demo.py'

model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3d',
        # warmer projections than the default, for a short schedule; the
        # default temperature of 0.05 would saturate their softmax
        blocks=[
            dict(
                type='nl_plugins.DisentangledNonLocal3d',
                after='layer2.0',
                std=0.1,
                temperature=1.0,
            )
        ],
    )
)
