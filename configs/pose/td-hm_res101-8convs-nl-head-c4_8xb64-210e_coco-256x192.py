_base_ = './td-hm_res101-8convs-nl-head_8xb64-210e_coco-256x192.py'
model = dict(
    backbone=dict(
        type='nl_plugins.WithBlocks',
        base='ResNet',
        blocks=[dict(type='nl_plugins.NonLocal2d', before='layer3.-1')],
    )
)
