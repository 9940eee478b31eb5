# long clips: load_from the model of short clips, and freeze the statistics
# of its norms
_base_ = './i3d_imagenet-pretrained-r50_8xb8-8x8x1-100e_kinetics400-rgb.py'
model = dict(backbone=dict(norm_eval=True))
train_pipeline = _base_.train_pipeline
val_pipeline = _base_.val_pipeline
test_pipeline = _base_.test_pipeline
for pipeline in train_pipeline, val_pipeline, test_pipeline:
    pipeline[1].update(clip_len=32, frame_interval=4)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
