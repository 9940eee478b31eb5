"""MMSegmentation's heads with the blocks of this package."""

from typing import Any

from mmseg.models import decode_heads
from torch import nn

from ..blocks import DisentangledNonLocal2d, NonLocal2d
from ..registry import MODELS


@MODELS.register_module()
class NLHead(decode_heads.NLHead):
    """A non-local block between the two 3 x 3 convolutions of an FCN head.

    It has the constructor and the state dict keys of MMSegmentation's head of
    this name. Source: `Non-local Neural Networks
    <https://arxiv.org/abs/1711.07971>`_.

    Args:
        args, kwargs: As in ``mmseg.NLHead`` (``reduction``, ``use_scale``,
            ``mode``, and what ``FCNHead`` takes).
        block (dict, optional): Further arguments of
            :class:`nl_plugins.NonLocal2d`, which override those above.
            Defaults to None.

    Raises:
        ValueError: If an argument has a value that is not allowed.
        TypeError: If there is no such argument.
    """

    def __init__(self, *args: Any, block: dict | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.nl_block = _build(NonLocal2d, self, block)


@MODELS.register_module()
class DNLHead(decode_heads.DNLHead):
    """A disentangled block between the 3 x 3 convolutions of an FCN head.

    It has the constructor and the state dict keys of MMSegmentation's head of
    this name. Source: `Disentangled Non-Local Neural Networks
    <https://arxiv.org/abs/2006.06668>`_.

    Args:
        args, kwargs: As in ``mmseg.DNLHead`` (``reduction``, ``use_scale``,
            ``mode``, ``temperature``, and what ``FCNHead`` takes).
        block (dict, optional): Further arguments of
            :class:`nl_plugins.DisentangledNonLocal2d`, which override those
            above. Defaults to None.

    Raises:
        ValueError: If an argument has a value that is not allowed.
        TypeError: If there is no such argument.
    """

    def __init__(self, *args: Any, block: dict | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dnl_block = _build(
            DisentangledNonLocal2d, self, block, temperature=self.temperature
        )


def _build(
    block_type: type, head: nn.Module, block: dict | None, **kwargs: Any
) -> nn.Module:
    """Build the block of a head from the head's arguments and ``block``."""
    block = block or {}
    has_output = block.get('output_layer')
    if has_output is None:
        has_output = not block.get('gate')
    kwargs |= dict(
        in_channels=head.channels,
        reduction=head.reduction,
        use_scale=head.use_scale,
        conv_cfg=head.conv_cfg,
        # By default a gate replaces the output layer and with it the norm.
        norm_cfg=head.norm_cfg if has_output else None,
        mode=head.mode,
    )
    return block_type(**kwargs | block)
