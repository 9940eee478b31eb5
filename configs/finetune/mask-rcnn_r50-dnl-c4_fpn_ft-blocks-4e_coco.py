# The blocks alone are trained.
_base_ = './mask-rcnn_r50-dnl-c4_fpn_ft-4e_coco.py'
model = dict(type='nl_plugins.WithBlocks', base='MaskRCNN', blocks=[], freeze_base=True)
