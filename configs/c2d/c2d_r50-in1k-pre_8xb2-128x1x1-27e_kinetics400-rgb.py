# The fine-tuning of I3D of 128x1x1, with the model of 32x2x1.
_base_ = '../i3d/i3d_imagenet-pretrained-r50_8xb2-128x1x1-27e_kinetics400-rgb.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
load_from = 'work_dirs/c2d_r50-in1k-pre_8xb8-32x2x1-100e_kinetics400-rgb/epoch_100.pth'
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
