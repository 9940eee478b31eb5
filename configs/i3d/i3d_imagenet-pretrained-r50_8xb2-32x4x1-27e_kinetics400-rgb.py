# The fine-tuning of the paper's video code: the model of short clips, all of
# its norms frozen, 400k iterations of 16 clips.
_base_ = './i3d_imagenet-pretrained-r50_8xb8-8x8x1-100e_kinetics400-rgb.py'
load_from = (
    'work_dirs/i3d_imagenet-pretrained-r50_8xb8-8x8x1-100e_kinetics400-rgb/'
    'epoch_100.pth'
)
model = dict(
    backbone=dict(norm_eval=True, norm_cfg=dict(type='BN3d', requires_grad=False))
)
train_pipeline = [
    dict(type='DecordInit', io_backend='disk'),
    dict(type='SampleFrames', clip_len=32, frame_interval=4, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='RandomRescale', scale_range=(256, 320)),
    dict(type='RandomCrop', size=224),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
val_pipeline = _base_.val_pipeline
test_pipeline = _base_.test_pipeline
for pipeline in val_pipeline, test_pipeline:
    pipeline[1].update(clip_len=32, frame_interval=4)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=2, dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=0.0025, nesterov=True),
    clip_grad=None,
)
train_cfg = dict(max_epochs=27)
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=27, by_epoch=True, milestones=[10, 20])
]
auto_scale_lr = dict(base_batch_size=16)
