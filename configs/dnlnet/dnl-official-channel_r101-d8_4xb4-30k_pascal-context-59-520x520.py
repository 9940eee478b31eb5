_base_ = '../fcn/fcn-ohem_r101-d8_4xb4-30k_pascal-context-59-520x520.py'
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
# Its configs give this variant ten times the rate of the other.
optim_wrapper = dict(optimizer=dict(lr=0.01))
