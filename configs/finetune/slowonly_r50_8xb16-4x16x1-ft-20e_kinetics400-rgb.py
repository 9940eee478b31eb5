# The baseline: the model that is fine-tuned, for as long, without blocks.
_base_ = (
    'mmaction::recognition/slowonly/'
    'slowonly_imagenet-pretrained-r50'
    '_8xb16-4x16x1-steplr-150e_kinetics400-rgb.py'
)
load_from = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/slowonly/'
    'slowonly_imagenet-pretrained-r50_8xb16-4x16x1-steplr-150e_kinetics400-rgb/'
    'slowonly_imagenet-pretrained-r50_8xb16-4x16x1-steplr-150e_kinetics400-rgb_'
    '20220901-e7b65fad.pth'
)
optim_wrapper = dict(optimizer=dict(lr=0.002))
train_cfg = dict(max_epochs=20, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=2),
    dict(
        type='MultiStepLR',
        begin=2,
        end=20,
        by_epoch=True,
        milestones=[12, 17],
        gamma=0.1,
    ),
]
