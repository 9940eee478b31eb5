_base_ = './i3d_imagenet-pretrained-r50_8xb8-8x8x1-100e_kinetics400-rgb.py'
model = dict(
    backbone=dict(
        depth=101,
        pretrained='torchvision://resnet101',
        inflate=((1, 1, 1), (1, 0, 1, 0), (1, 0) * 11 + (1,), (0, 1, 0)),
    )
)
