_base_ = './c2d_r50-in1k-pre_8xb8-32x2x1-100e_kinetics400-rgb.py'
model = dict(backbone=dict(depth=101, pretrained='torchvision://resnet101'))
