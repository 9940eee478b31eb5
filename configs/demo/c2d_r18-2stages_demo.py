# A frame-wise network (C2D) made small enough to train in minutes on two CPU
# cores, for the dataset of tools/demo/video.py: ResNet3d without kernels
# in time, which adds up what it finds in single frames.
_base_ = (
    'mmaction::recognition/i3d/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py'
)
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        depth=18,
        # trained from scratch
        pretrained=None,
        pretrained2d=False,
        base_channels=16,
        conv1_kernel=(1, 7, 7),
        conv1_stride_t=1,
        pool1_stride_t=1,
        num_stages=2,
        out_indices=(1,),
        spatial_strides=(1, 2),
        temporal_strides=(1, 1),
        dilations=(1, 1),
        inflate=(0, 0),
        with_pool2=False,
    ),
    cls_head=dict(num_classes=2, in_channels=32, dropout_ratio=0.0),
)

data_root = 'data/demo_video/'
# every fourth frame, as it is
train_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=4, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
test_pipeline = [
    dict(type='DecordInit'),
    dict(
        type='SampleFrames', clip_len=4, frame_interval=4, num_clips=1, test_mode=True
    ),
    dict(type='DecordDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        ann_file=data_root + 'kinetics400_train_list_videos.txt',
        data_prefix=dict(video=data_root + 'videos_train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=1,
    dataset=dict(
        ann_file=data_root + 'kinetics400_val_list_videos.txt',
        data_prefix=dict(video=data_root + 'videos_val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=8, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=True, milestones=[6], gamma=0.1),
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
    logger=dict(interval=10), checkpoint=dict(interval=8, max_keep_ckpts=2)
)
