"""Keys of PySlowFast's ResNets, with one pathway and with two.

Source: https://github.com/facebookresearch/SlowFast.
"""

import torch
from torch import Tensor

from .renaming import Source

#: The pathways of a model: C2D, I3D and Slow have one, SlowFast has two.
ONE_PATHWAY = ((r'^pathway0\.(?=conv1|layer\d)', 'backbone.'),)
TWO_PATHWAYS = (
    (r'^pathway0\.(?=conv1|layer\d)', 'backbone.slow_path.'),
    (r'^pathway1\.(?=conv1|layer\d)', 'backbone.fast_path.'),
)
_TABLE = (
    (r'^head\.projection\.', 'cls_head.fc_cls.'),
    *((rf'^s{n + 1}(?=[._])', f'layer{n}') for n in range(5)),
    (r'^layer0\.pathway(\d)_stem\.', r'pathway\1.conv1.'),
    (r'^layer0_fuse\.', 'pathway0.conv1_lateral.'),
    (r'^(layer\d)_fuse\.', r'pathway0.\1_lateral.'),
    (r'_lateral\.conv_f2s\.', '_lateral.conv.'),
    (r'^(layer\d)\.pathway(\d)_res(\d+)\.', r'pathway\2.\1.\3.'),
    (r'\.branch1\.', '.downsample.conv.'),
    (r'\.branch1_bn\.', '.downsample.bn.'),
    *((rf'\.branch2\.{x}\.', f'.conv{n}.conv.') for n, x in enumerate('abc', 1)),
    *((rf'\.branch2\.{x}_bn\.', f'.conv{n}.bn.') for n, x in enumerate('abc', 1)),
    (
        r'^(layer\d)\.pathway(\d)_nonlocal(\d+)\.',
        r'pathway\2.\1.\3.non_local_block.',
    ),
    (r'_block\.conv_(theta|phi|g)\.', r'_block.\1.conv.'),
    (r'_block\.conv_out\.', '_block.conv_out.conv.'),
    (r'_block\.bn\.', '_block.conv_out.bn.'),
)


def swap_pathways(state_dict: dict[str, Tensor]) -> None:
    """Put the fast pathway first in the classifier, as MMAction2 does."""
    weight = state_dict.get('cls_head.fc_cls.weight')
    last = state_dict.get('backbone.slow_path.layer4.0.conv3.bn.weight')
    if weight is not None and last is not None:
        weight = torch.cat([weight[:, len(last) :], weight[:, : len(last)]], dim=1)
        state_dict['cls_head.fc_cls.weight'] = weight


SOURCES = (
    Source('PySlowFast', r's1\.pathway1_stem\.', _TABLE + TWO_PATHWAYS, swap_pathways),
    Source('PySlowFast', r's1\.pathway0_stem\.', _TABLE + ONE_PATHWAY),
)
