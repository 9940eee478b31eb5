# A pose estimator made small enough to train in minutes on two CPU cores, for
# the images of tools/demo/matching.py: ResNet-18 with two stages and one
# deconvolution, which cannot see as far as the grey patch.
_base_ = (
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
    'td-hm_res50_8xb64-210e_coco-256x192.py'
)
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)

codec = dict(type='MSRAHeatmap', input_size=(192, 96), heatmap_size=(48, 24), sigma=2)
model = dict(
    backbone=dict(
        depth=18,
        num_stages=2,
        stem_channels=32,
        base_channels=32,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
        # trained from scratch
        init_cfg=None,
    ),
    head=dict(
        in_channels=64,
        out_channels=1,
        deconv_out_channels=(64,),
        deconv_kernel_sizes=(4,),
        decoder=codec,
    ),
    test_cfg=dict(flip_test=False),
)

metainfo = dict(
    dataset_name='matching',
    keypoint_info={0: dict(name='match', id=0, color=[0, 255, 0], type='', swap='')},
    skeleton_info={},
    joint_weights=[1.0],
    sigmas=[0.05],
)
# the whole image is the box, and is read as it is
load = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.0),
]
affine = dict(type='TopdownAffine', input_size=codec['input_size'])
train_pipeline = [
    *load,
    dict(type='RandomFlip', direction='horizontal'),
    affine,
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
test_pipeline = [*load, affine, dict(type='PackPoseInputs')]
data_root = 'data/demo_pose/'
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/person_keypoints_train.json',
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/person_keypoints_val.json',
        bbox_file=None,
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/person_keypoints_val.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=8, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=True, milestones=[6], gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.01),
    # A block starts as an identity. Larger steps for its value path let it
    # open early. The baseline has no such parameters.
    paramwise_cfg=dict(
        custom_keys={
            'non_local_block.g.': dict(lr_mult=10.0),
            'non_local_block.conv_out.': dict(lr_mult=10.0),
        }
    ),
)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=8, max_keep_ckpts=2, save_best=None),
)
