_base_ = './i3d_imagenet-pretrained-r50_8xb2-128x1x1-27e_kinetics400-rgb.py'
load_from = (
    'work_dirs/i3d_imagenet-pretrained-r101_8xb8-32x2x1-100e_kinetics400-rgb/'
    'epoch_100.pth'
)
model = dict(
    backbone=dict(
        depth=101,
        pretrained='torchvision://resnet101',
        inflate=((1, 1, 1), (1, 0, 1, 0), (1, 0) * 11 + (1,), (0, 1, 0)),
    )
)
