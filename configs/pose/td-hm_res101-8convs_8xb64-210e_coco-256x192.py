# The head of Mask R-CNN's keypoint branch, eight 3 x 3 convolutions, behind the
# three deconvolutions of this baseline.
_base_ = (
    'mmpose::body_2d_keypoint/topdown_heatmap/coco/'
    'td-hm_res101_8xb64-210e_coco-256x192.py'
)
model = dict(
    head=dict(conv_out_channels=(256,) * 8, conv_kernel_sizes=(3,) * 8),
)
