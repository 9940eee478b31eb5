"""Checks of the arguments of a block, before any layer is built.

Each raises a ``ValueError`` that names the value and what is allowed.
"""

from collections.abc import Sequence

from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from ..errors import did_you_mean
from ..registry import find_type
from .layout import LAYOUTS

#: Pairwise functions with a softmax.
SOFTMAX_MODES = ('gaussian', 'embedded_gaussian')
MODES = (*SOFTMAX_MODES, 'dot_product', 'concatenation')


def check_options(
    in_channels: int,
    reduction: int,
    num_heads: int,
    mode: str,
    sub_sample: bool | str,
    gate: str | None,
    output_layer: bool,
    conv_cfg: dict | None,
    norm_cfg: dict | None,
    std: float,
) -> None:
    """Check the arguments that do not depend on the channels of layers."""
    check_positive('in_channels', in_channels)
    check_positive('reduction', reduction)
    check_positive('num_heads', num_heads)
    check_number('std', std)
    check_layer('conv_cfg', conv_cfg, nn.modules.conv._ConvNd)
    check_layer('norm_cfg', norm_cfg, nn.modules.batchnorm._NormBase, nn.GroupNorm)
    if mode not in MODES:
        raise ValueError(f'mode must be one of {MODES}, but got {mode!r}')
    if sub_sample not in (False, True, 'before'):
        raise ValueError(
            f"sub_sample must be False, True or 'before', but got {sub_sample!r}"
        )
    if gate not in (None, 'scalar'):
        raise ValueError(f"gate must be None or 'scalar', got {gate!r}")
    if output_layer not in (True, False):
        raise ValueError(
            f'output_layer must be None, True or False, but got {output_layer!r}'
        )
    if norm_cfg and not output_layer:
        raise ValueError(
            'norm_cfg is that of the output layer, which a block has by default '
            "without gate='scalar': norm_cfg must be None or output_layer True, "
            f'but got {norm_cfg}'
        )


def check_widths(
    in_channels: int,
    inner: int,
    key_channels: int | None,
    value_channels: int | None,
    mode: str,
    share_query_key: bool,
    num_heads: int,
    output_layer: bool,
) -> tuple[int, int]:
    """Check the channels of key and value and return them, with defaults.

    ``inner`` is the default, ``in_channels // reduction``.
    """
    if mode == 'gaussian':
        if key_channels is not None or share_query_key:
            raise ValueError(
                'key_channels must be None and share_query_key False with '
                "mode='gaussian', which compares the input itself, but "
                f'got {key_channels} and {share_query_key}'
            )
        key_channels = in_channels
    elif key_channels is None:
        key_channels = inner
    if value_channels is None:
        value_channels = inner if output_layer else in_channels
    for name, value in (
        ('key_channels', key_channels),
        ('value_channels', value_channels),
    ):
        check_positive(name, value)
        if value % num_heads:
            raise ValueError(
                f'num_heads must divide {name} ({value}), but got {num_heads}'
            )
    # Without an output layer the value is added to the input.
    if not output_layer and value_channels != in_channels:
        raise ValueError(
            'without an output layer, value_channels must be in_channels '
            f'({in_channels}) or output_layer True, but got {value_channels}'
        )
    return key_channels, value_channels


#: Arguments of a projection's layer, by the name of the projection.
_LAYER_OPTIONS = dict(
    query=('bias', 'norm_cfg', 'act_cfg', 'with_spectral_norm'),
    key=('bias', 'norm_cfg', 'act_cfg', 'with_spectral_norm'),
    value=('bias', 'with_spectral_norm'),
    output=('bias', 'with_spectral_norm'),
)


def check_projections(
    cfg: dict[str, dict] | None, exists: dict[str, bool], with_cp: bool
) -> dict[str, dict]:
    """Check the arguments of the layers and return them for all projections.

    ``exists`` says which projections the block has.
    """
    cfg = {} if cfg is None else cfg
    names = tuple(name for name, here in exists.items() if here)
    if not isinstance(cfg, dict) or not set(cfg) <= set(names):
        raise ValueError(
            f'projection_cfg must be a dict whose keys are out of {names}, the '
            f'projections of this block, but got {cfg!r}'
        )
    for name, options in cfg.items():
        allowed = _LAYER_OPTIONS[name]
        if not isinstance(options, dict) or not set(options) <= set(allowed):
            raise ValueError(
                f'projection_cfg[{name!r}] must be a dict whose keys are out of '
                f'{allowed}, but got {options!r}'
            )
        check_layer(
            f'projection_cfg[{name!r}].norm_cfg',
            options.get('norm_cfg'),
            nn.modules.batchnorm._NormBase,
            nn.GroupNorm,
        )
        check_layer(
            f'projection_cfg[{name!r}].act_cfg',
            options.get('act_cfg'),
            nn.ReLU,
            nn.LeakyReLU,
            nn.Tanh,
        )
        for flag in {'bias', 'with_spectral_norm'} & set(options):
            if options[flag] not in (True, False):
                raise ValueError(
                    f'projection_cfg[{name!r}].{flag} must be True or False, '
                    f'but got {options[flag]!r}'
                )
        stateful = options.get('norm_cfg') or options.get('with_spectral_norm')
        if with_cp and stateful and name != 'output':
            raise ValueError(
                'with_cp recomputes query, key and value, and a norm of them '
                'would see its input twice: with_cp must be False with '
                f'projection_cfg={cfg}'
            )
    return {name: cfg.get(name, {}) for name in exists}


def check_positional_encoding(
    encoding: str | None, in_channels: int, ndim: int, has_query_and_key: bool
) -> None:
    """Check that there are queries and keys, and channels, to be encoded."""
    if encoding is None:
        return
    if encoding != 'sine':
        raise ValueError(
            f"positional_encoding must be None or 'sine', but got {encoding!r}"
        )
    if not has_query_and_key:
        raise ValueError(
            'positional_encoding is added to the input of query and key, which a '
            'block with a separate unary term alone does not have: it must be None, '
            f'but got {encoding!r}'
        )
    divisor = 2 if ndim == 1 else 4
    if in_channels % divisor:
        raise ValueError(
            f"positional_encoding='sine' needs in_channels divisible by {divisor} in "
            f'{ndim}d, but got {in_channels}'
        )


def check_layout(layout: str | None, ndim: int) -> str:
    """Check the order of the dimensions and return it, with its default."""
    if layout not in (None, *LAYOUTS[ndim]):
        raise ValueError(f'layout must be one of {LAYOUTS[ndim]}, but got {layout!r}')
    return layout or LAYOUTS[ndim][0]


def check_pool_size(
    pool_size: int | Sequence[int], ndim: int, sub_sample: bool | str
) -> tuple[int, ...]:
    """Check the size of the pooling and return one number a dimension."""
    sizes = [pool_size] * ndim if isinstance(pool_size, int) else pool_size
    if not sub_sample:
        raise ValueError(
            'pool_size is that of sub_sample, which must be '
            f"True or 'before', but got {sub_sample}"
        )
    if len(sizes) != ndim or any(
        not isinstance(size, int) or size < 1 for size in sizes
    ):
        raise ValueError(
            f'pool_size must be {ndim} integers of at least 1, but got {pool_size!r}'
        )
    return tuple(sizes)


def check_positive(name: str, value: int) -> None:
    """Check that an argument is an integer of at least 1."""
    # True is an int, and mmcv's blocks have a flag in the place of `reduction`.
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{name} must be an integer of at least 1, but got {value!r}')


def check_number(name: str, value: float, allow_zero: bool = True) -> None:
    """Check that an argument is a number of at least 0, or greater than 0."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (value > 0 or allow_zero and value == 0)
    ):
        expected = 'of at least 0' if allow_zero else 'greater than 0'
        raise ValueError(f'{name} must be a number {expected}, but got {value!r}')


def check_layer(name: str, cfg: dict | None, *kinds: type) -> None:
    """Check that the config of a layer names a type that is registered.

    ``kinds`` are base classes of the layers that the message lists.
    """
    if cfg is None:
        return
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ValueError(f"{name} must be a dict with a 'type', but got {cfg!r}")
    if find_type(cfg['type']) is None:
        known = [
            key
            for key, layer in MMENGINE_MODELS.module_dict.items()
            if isinstance(layer, type) and issubclass(layer, kinds)
        ]
        raise ValueError(
            f'{name}.type must be a layer such as {", ".join(known)}, but got '
            f'{cfg["type"]!r}' + did_you_mean(known, cfg['type'])
        )
