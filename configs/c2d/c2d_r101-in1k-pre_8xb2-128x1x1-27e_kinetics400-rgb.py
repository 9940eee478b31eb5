_base_ = './c2d_r50-in1k-pre_8xb2-128x1x1-27e_kinetics400-rgb.py'
load_from = 'work_dirs/c2d_r101-in1k-pre_8xb8-32x2x1-100e_kinetics400-rgb/epoch_100.pth'
model = dict(backbone=dict(depth=101, pretrained='torchvision://resnet101'))
