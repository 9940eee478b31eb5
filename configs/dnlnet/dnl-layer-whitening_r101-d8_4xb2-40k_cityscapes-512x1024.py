_base_ = './dnl_r101-d8_4xb2-40k_cityscapes-512x1024.py'
# Of the block of the paper's own code: it subtracts one mean over positions
# and channels, and has neither scale nor temperature. The rest is upstream's.
model = dict(
    decode_head=dict(use_scale=False, temperature=1.0, block=dict(whiten='layer'))
)
