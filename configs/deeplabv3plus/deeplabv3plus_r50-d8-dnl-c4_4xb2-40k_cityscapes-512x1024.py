_base_ = 'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py'  # noqa: E501
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNetV1c',
        blocks=[dict(type='nl_plugins.DisentangledNonLocal2d', before='layer3.-1')],
    )
)
