# The model of the DNL paper's segmentation code, without a block.
_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    pretrained='open-mmlab://resnet101_v1c',
    backbone=dict(depth=101),
    # without num_convs, which a DNLHead in its place does not take
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        dropout_ratio=0.1,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=True,
        loss_decode=dict(type='nl_plugins.OHEMCrossEntropyLoss'),
    ),
    auxiliary_head=dict(
        align_corners=True,
        channels=512,
        loss_decode=dict(
            _delete_=True,
            type='nl_plugins.OHEMCrossEntropyLoss',
            thresh=None,
            loss_weight=0.4,
        ),
    ),
)
