"""Keys of the DNL paper's code for segmentation and for detection.

Sources: https://github.com/yinmh17/DNL-Semantic-Segmentation, adapted from
torchcv, and https://github.com/Howal/DNL-Object-Detection, adapted from
MMDetection 1.x, whose other two-stage detectors have the same keys.
"""

from torch import Tensor

from .convert import EPS
from .renaming import Source

_BLOCK = (
    (r'_block\.conv_query\.', '_block.theta.conv.'),
    (r'_block\.conv_key\.', '_block.phi.conv.'),
    (r'_block\.conv_value\.', '_block.g.conv.'),
    (r'_block\.conv_out\.(?=weight|bias)', '_block.conv_out.conv.'),
    (r'_block\.out_bn\.', '_block.conv_out.bn.'),
)
_SEGMENTATION = (
    (r'^nlm\.conv([ab])\.0\.', r'decode_head.convs.\1.conv.'),
    (r'^nlm\.conv([ab])\.1\.0\.', r'decode_head.convs.\1.bn.'),
    (r'\.convs\.a\.', '.convs.0.'),
    (r'\.convs\.b\.', '.convs.1.'),
    (r'^nlm\.bottleneck\.0\.', 'decode_head.conv_cat.conv.'),
    (r'^nlm\.bottleneck\.1\.0\.', 'decode_head.conv_cat.bn.'),
    (r'^nlm\.bottleneck\.3\.', 'decode_head.conv_seg.'),
    (r'^dsn\.0\.conv\.', 'auxiliary_head.convs.0.conv.'),
    (r'^dsn\.0\.bn_relu\.0\.', 'auxiliary_head.convs.0.bn.'),
    (r'^dsn\.2\.', 'auxiliary_head.conv_seg.'),
    (r'^nlm\.ctb\.', 'decode_head.nl_block.'),
    *_BLOCK,
)
_DEEP_STEM = (
    *((rf'\.prefix\.conv{n}\.', f'.stem.{3 * n - 3}.') for n in (1, 2, 3)),
    *((rf'\.prefix\.bn{n}\.', f'.stem.{3 * n - 2}.') for n in (1, 2, 3)),
)
_DETECTION = (
    (r'^(bbox|mask)_head\.', r'roi_head.\1_head.'),
    # It runs before the ReLU that ends the residual block.
    (r'\.(?:nonlocal|nl_gc)_block\.', '.relu.non_local_block.'),
    # Of the simplified block; _upgrade_detector renames its mask.
    (r'\.context_block\.(?=conv_value\.)', '.relu.non_local_block.'),
    *_BLOCK,
)


def _upgrade_detector(state_dict: dict[str, Tensor]) -> None:
    """Convert the norms to batch norms and the classes to MMDetection's order.

    The simplified non-local block has the name of the global context block
    there.

    An in-place activated batch norm, which has no counter, scales by the
    absolute value of its weight plus ``eps``. MMDetection 1.x has the
    background as the first class, with its own box and mask; since 2.0 it is
    the last one, without them.
    """
    for key in list(state_dict):
        host, found, name = key.partition('.context_block.conv_mask.')
        block = f'{host}.relu.non_local_block'
        if found and f'{block}.g.conv.weight' in state_dict:
            state_dict[f'{block}.conv_mask.{name}'] = state_dict.pop(key)
    if not any(key.endswith('num_batches_tracked') for key in state_dict):
        for key in state_dict:
            if key.endswith('.running_mean'):
                weight = key.replace('.running_mean', '.weight')
                state_dict[weight] = state_dict[weight].abs() + EPS
    for kind in 'weight', 'bias':
        classes = f'roi_head.bbox_head.fc_cls.{kind}'
        if classes not in state_dict:
            continue
        number = len(state_dict[classes])
        state_dict[classes] = state_dict[classes].roll(-1, 0)
        for name, size in (('bbox_head.fc_reg', 4), ('mask_head.conv_logits', 1)):
            key = f'roi_head.{name}.{kind}'
            # A layer that all classes share has no background.
            if key in state_dict and len(state_dict[key]) == size * number:
                state_dict[key] = state_dict[key][size:]


SOURCES = (
    Source(
        'DNL-Semantic-Segmentation',
        r'backbone\.prefix\.conv2\.',
        _DEEP_STEM + _SEGMENTATION,
    ),
    Source(
        'DNL-Semantic-Segmentation',
        r'backbone\.prefix\.',
        ((r'\.prefix\.', '.'), *_SEGMENTATION),
    ),
    Source(
        'DNL-Object-Detection',
        r'bbox_head\.(shared_fcs|fc_cls)\.',
        _DETECTION,
        _upgrade_detector,
    ),
)
