_base_ = (
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
    'td-hm_res50_8xb64-210e_coco-256x192.py'
)
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=[
            dict(
                type='nl_plugins.DisentangledNonLocal2d',
                reduction=4,
                gate='scalar',
                before='layer3.-1',
            )
        ],
    )
)
