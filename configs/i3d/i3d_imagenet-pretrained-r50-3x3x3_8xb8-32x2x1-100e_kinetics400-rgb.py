_base_ = (
    'mmaction::recognition/i3d/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py'
)
model = dict(backbone=dict(inflate_style='3x3x3'))
