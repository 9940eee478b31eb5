_base_ = 'mmseg::dnlnet/dnl_r101-d8_4xb2-80k_cityscapes-769x769.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(decode_head=dict(type='nl_plugins.DNLHead'))
# No weight decay on query and key, as in the paper's own code.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'dnl_block.theta': dict(decay_mult=0.0),
            'dnl_block.phi': dict(decay_mult=0.0),
        }
    )
)
