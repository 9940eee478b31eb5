_base_ = './i3d_imagenet-pretrained-r101_8xb8-8x8x1-100e_kinetics400-rgb.py'
model = dict(backbone=dict(inflate_style='3x3x3'))
