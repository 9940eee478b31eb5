# The blocks alone are trained.
_base_ = './fcn_r50-d8-dnl-c4_4xb2-ft-10k_cityscapes-512x1024.py'
model = dict(
    type='nl_plugins.WithBlocks', base='EncoderDecoder', blocks=[], freeze_base=True
)
