_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
norm_cfg = dict(type='SyncBN', requires_grad=True)
roi_layer = dict(sampling_ratio=2)
# Losses, proposals, warm-up and clipping are those of the DNL paper's
# detection code; MMDetection 3 has other defaults.
model = dict(
    backbone=dict(norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    rpn_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1.0 / 9.0)),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=roi_layer),
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead',
            conv_out_channels=256,
            norm_cfg=norm_cfg,
            loss_bbox=dict(type='SmoothL1Loss', beta=1.0),
        ),
        mask_roi_extractor=dict(roi_layer=roi_layer),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=2000)),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[8, 11],
        gamma=0.1,
    ),
]
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
