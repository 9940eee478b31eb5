_base_ = '../fcn/fcn-ohem_r101-d8_8xb2-150k_ade20k-520x520.py'
model = dict(
    decode_head=dict(
        type='nl_plugins.DNLHead',
        use_scale=False,
        temperature=1.0,
        block=dict(
            whiten='layer',
            gate='scalar',
            projection_cfg=dict(value=dict(bias=False)),
            zeros_init=False,
        ),
    )
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'dnl_block.theta': dict(decay_mult=0.0),
            'dnl_block.phi': dict(decay_mult=0.0),
        }
    )
)
