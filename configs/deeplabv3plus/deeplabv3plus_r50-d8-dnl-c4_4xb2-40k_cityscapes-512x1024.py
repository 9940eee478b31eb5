_base_ = 'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py'  # noqa: E501
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNetV1c',
        blocks=[
            dict(
                type='nl_plugins.DisentangledNonLocal2d',
                # as behind the output convolution of MMSegmentation's heads
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                before='layer3.-1',
            )
        ],
    )
)
# No weight decay on query and key, as in the paper's own code.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'non_local_block.theta': dict(decay_mult=0.0),
            'non_local_block.phi': dict(decay_mult=0.0),
        }
    )
)
