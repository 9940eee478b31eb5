# The blocks alone are trained.
_base_ = './slowonly_r50-nl-5blocks_8xb16-4x16x1-ft-20e_kinetics400-rgb.py'
model = dict(
    type='nl_plugins.WithBlocks', base='Recognizer3D', blocks=[], freeze_base=True
)
