# A classifier made small enough to train in minutes on two CPU cores, for the
# images of tools/demo/matching.py: ResNet-18 with two stages, which adds up
# what it finds at single positions.
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        num_stages=2,
        stem_channels=32,
        base_channels=32,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
    ),
    head=dict(num_classes=2, in_channels=64, topk=(1,)),
)
data_preprocessor = dict(num_classes=2)

# images are read as they are
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(192, 96)),
    dict(type='PackInputs'),
]
dataset = dict(
    _delete_=True,
    type='CustomDataset',
    data_root='data/demo_cls',
    classes=['orange', 'blue'],
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, data_prefix='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=1,
    dataset=dict(dataset, data_prefix='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=True, milestones=[10], gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.01),
    # A block starts as an identity. Larger steps for its value path let it
    # open early. The baseline has no such parameters.
    paramwise_cfg=dict(
        custom_keys={
            'non_local_block.g.': dict(lr_mult=10.0),
            'non_local_block.conv_out.': dict(lr_mult=10.0),
        }
    ),
)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=12, max_keep_ckpts=2)
)
