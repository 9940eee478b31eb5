# C2D as a ResNet3d without temporal kernels, which has the strides of the
# paper (upstream's C2D would run its first stage on all 128 frames); long
# clips: frozen statistics of the norms
_base_ = (
    'mmaction::recognition/i3d/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py'
)
model = dict(
    backbone=dict(conv1_kernel=(1, 7, 7), inflate=(0, 0, 0, 0), norm_eval=True)
)
train_pipeline = _base_.train_pipeline
val_pipeline = _base_.val_pipeline
test_pipeline = _base_.test_pipeline
for pipeline in train_pipeline, val_pipeline, test_pipeline:
    pipeline[1].update(clip_len=128, frame_interval=1)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
