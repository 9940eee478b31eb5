# 8 frames, all of which the first stage sees
_base_ = (
    'mmaction::recognition/i3d/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py'
)
model = dict(backbone=dict(conv1_stride_t=1, pool1_stride_t=1))
train_pipeline = _base_.train_pipeline
val_pipeline = _base_.val_pipeline
test_pipeline = _base_.test_pipeline
for pipeline in train_pipeline, val_pipeline, test_pipeline:
    pipeline[1].update(clip_len=8, frame_interval=8)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
