_base_ = (
    'mmaction::recognition/c2d/c2d_r50-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb.py'
)
model = dict(
    backbone=dict(
        depth=101,
        pretrained=('https://download.pytorch.org/models/resnet101-cd907fc2.pth'),
    )
)
