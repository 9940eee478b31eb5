# FCN made small enough to train in minutes on two CPU cores, for the dataset
# of tools/demo/segmentation.py. With two ResNet stages it cannot see as far
# as the lamp that names a shape.
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)

norm_cfg = dict(type='BN', requires_grad=True)
# Naming the few pixels of the shapes (car 13, bus 15) counts more than
# finding them, for a short schedule.
class_weight = [1.0] * 19
class_weight[13] = class_weight[15] = 5.0
loss_decode = dict(type='CrossEntropyLoss', class_weight=class_weight)
data_preprocessor = dict(size=(96, 192))
model = dict(
    data_preprocessor=data_preprocessor,
    # trained from scratch
    pretrained=None,
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=32,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        in_channels=64,
        in_index=0,
        channels=64,
        concat_input=False,
        norm_cfg=norm_cfg,
        loss_decode=loss_decode,
    ),
    auxiliary_head=None,
)

data_root = 'data/demo_seg/'
# images are read as they are
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=1,
    dataset=dict(data_root=data_root, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

train_cfg = dict(max_iters=400, val_interval=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=False, milestones=[300], gamma=0.1),
]
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    # A block starts as an identity. Larger steps for its value path let it
    # open early; larger steps for its query and key would saturate the
    # softmax. The baseline has no such parameters.
    paramwise_cfg=dict(
        custom_keys={
            'nl_block.g.': dict(lr_mult=10.0),
            'nl_block.conv_out.': dict(lr_mult=10.0),
        }
    ),
)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=400, max_keep_ckpts=2)
)
