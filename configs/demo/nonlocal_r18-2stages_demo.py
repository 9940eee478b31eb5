_base_ = './fcn_r18-2stages_demo.py'

# warmer projections than the default, for a short schedule
model = dict(
    decode_head=dict(
        _delete_=True,
        type='nl_plugins.NLHead',
        in_channels=64,
        in_index=0,
        channels=64,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=_base_.loss_decode,
        block=dict(std=0.1),
    )
)
