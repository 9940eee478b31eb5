_base_ = '../fcn/fcn-ohem_r101-d8_4xb2-60k_cityscapes-769x769.py'
model = dict(
    decode_head=dict(
        type='nl_plugins.DNLHead',
        temperature=0.05,
        block=dict(
            gate='scalar',
            projection_cfg=dict(value=dict(bias=False)),
            zeros_init=False,
        ),
    )
)
