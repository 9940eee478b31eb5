_base_ = './td-hm_res50-8convs_8xb64-210e_coco-256x192.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(
    head=dict(
        type='nl_plugins.WithBlocks',
        base='HeatmapHead',
        blocks=[
            # After every two of the eight convolutions.
            dict(
                type='nl_plugins.NonLocal2d',
                before=[
                    'conv_layers.6',
                    'conv_layers.12',
                    'conv_layers.18',
                    'final_layer',
                ],
            )
        ],
    ),
)
