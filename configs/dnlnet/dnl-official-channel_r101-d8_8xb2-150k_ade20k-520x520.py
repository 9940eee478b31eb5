_base_ = '../fcn/fcn-ohem_r101-d8_8xb2-150k_ade20k-520x520.py'
model = dict(
    decode_head=dict(
        type='nl_plugins.DNLHead',
        temperature=0.1,
        block=dict(
            gate='scalar',
            projection_cfg=dict(value=dict(bias=False)),
            zeros_init=False,
        ),
    )
)
