_base_ = 'mmseg::nonlocal_net/nonlocal_r101-d8_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['nl_plugins'], allow_failed_imports=False)
model = dict(decode_head=dict(type='nl_plugins.NLHead'))
