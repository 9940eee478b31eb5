# The baseline: the model that is fine-tuned, for as long, without a block.
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
load_from = (
    'https://download.openmmlab.com/mmsegmentation/v0.5/fcn/'
    'fcn_r50-d8_512x1024_40k_cityscapes/'
    'fcn_r50-d8_512x1024_40k_cityscapes_20200604_192608-efe53f0d.pth'
)
optim_wrapper = dict(optimizer=dict(lr=0.001))
train_cfg = dict(max_iters=10000, val_interval=1000)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=0, end=10000, by_epoch=False)
]
default_hooks = dict(checkpoint=dict(interval=1000))
# of the base config: 4 GPUs with 2 images each
auto_scale_lr = dict(enable=False, base_batch_size=8)
