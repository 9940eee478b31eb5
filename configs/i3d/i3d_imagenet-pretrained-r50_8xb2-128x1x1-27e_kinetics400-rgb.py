# The fine-tuning of the 32x4x1 config, with the strides of 32x2x1.
_base_ = './i3d_imagenet-pretrained-r50_8xb2-32x4x1-27e_kinetics400-rgb.py'
load_from = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/i3d/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb'
    '_20220812-e213c223.pth'
)
model = dict(backbone=dict(conv1_stride_t=2, pool1_stride_t=2))
train_pipeline = _base_.train_pipeline
val_pipeline = _base_.val_pipeline
test_pipeline = _base_.test_pipeline
for pipeline in train_pipeline, val_pipeline, test_pipeline:
    pipeline[1].update(clip_len=128, frame_interval=1)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
