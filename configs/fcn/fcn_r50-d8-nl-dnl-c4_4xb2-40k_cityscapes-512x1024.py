_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
# as behind the output convolution of MMSegmentation's heads
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNetV1c',
        blocks=[
            dict(type='nl_plugins.NonLocal2d', norm_cfg=norm_cfg, before='layer3.-1'),
            dict(
                type='nl_plugins.DisentangledNonLocal2d',
                norm_cfg=norm_cfg,
                before='layer3.-1',
            ),
        ],
    )
)
# No weight decay on query and key of the disentangled block, the second one at
# this place, as in the paper's own code.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'non_local_block_1.theta': dict(decay_mult=0.0),
            'non_local_block_1.phi': dict(decay_mult=0.0),
        }
    )
)
