_base_ = [
    'mmseg::_base_/models/dnl_r50-d8.py',
    'mmseg::_base_/datasets/pascal_context_59.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_40k.py',
]
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
crop_size = (480, 480)
data_preprocessor = dict(size=crop_size)
model = dict(
    data_preprocessor=data_preprocessor,
    decode_head=dict(type='nl_plugins.DNLHead', num_classes=59),
    auxiliary_head=dict(num_classes=59),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(320, 320)),
)
# The schedule of MMSegmentation's other configs for this dataset.
optimizer = dict(type='SGD', lr=0.004, momentum=0.9, weight_decay=0.0001)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=optimizer,
    # No weight decay on query and key, as in the paper's own code.
    paramwise_cfg=dict(
        custom_keys={
            'dnl_block.theta': dict(decay_mult=0.0),
            'dnl_block.phi': dict(decay_mult=0.0),
        }
    ),
)
