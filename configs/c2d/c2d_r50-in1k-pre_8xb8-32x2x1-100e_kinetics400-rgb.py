# C2D as a ResNet3d without temporal kernels, with the strides of the paper. Its
# first pooling takes the maximum of two frames; that of ResNet3d drops one.
_base_ = (
    'mmaction::recognition/i3d/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py'
)
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet3d',
        conv1_kernel=(1, 7, 7),
        pool1_stride_t=1,
        inflate=(0, 0, 0, 0),
        blocks=dict(
            pool=dict(type='torch.nn.MaxPool3d', kernel_size=(2, 1, 1), after='conv1')
        ),
    )
)
