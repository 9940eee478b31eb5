_base_ = './nonlocal_r18-2stages_demo.py'

# the default temperature of 0.05 would saturate the softmax of such warm
# projections
model = dict(decode_head=dict(type='nl_plugins.DNLHead', temperature=1.0))
