"""Conversion of feature maps to tokens that attend to each other, and back.

Letters as in :mod:`nl_plugins.blocks.base`.
"""

from math import prod
from typing import NamedTuple

from torch import Tensor

#: By the number of dimensions: channels first, which is the default, or last.
LAYOUTS = {1: ('BCN', 'BNC'), 2: ('BCHW', 'BHWC'), 3: ('BCTHW',)}


class Projections(NamedTuple):
    """The operands of the attention.

    Attributes:
        query (Tensor, optional): Shape ``(G, h, N, D)``. None in a block that
            has only a unary term.
        key (Tensor, optional): Shape ``(G, h, Nk, D)``. None as the query.
        value (Tensor): Shape ``(G, h, Nk, Dv)``.
        key_bias (Tensor, optional): Shape ``(G, h, Nk)``, the term of the
            logits that depends on the key alone.
    """

    query: Tensor | None
    key: Tensor | None
    value: Tensor
    key_bias: Tensor | None = None


class TokenLayout:
    """Layout in which every position attends to all positions.

    Args:
        name (str): Name of the block in messages.
        in_channels (int): Channels of its input.
        ndim (int): Number of dimensions after batch and channels.
        num_heads (int): Heads that the channels are split into.
        order (str): One of ``LAYOUTS[ndim]``.
    """

    def __init__(
        self, name: str, in_channels: int, ndim: int, num_heads: int, order: str
    ) -> None:
        self.name = name
        self.in_channels = in_channels
        self.ndim = ndim
        self.num_heads = num_heads
        self.order = order

    def unfold(self, x: Tensor) -> Tensor:
        """Check the input of a block and return it as ``(B, C, *size)``.

        Raises:
            ValueError: If its rank or channels are wrong.
        """
        axis = self.order.index('C')
        if x.dim() != self.ndim + 2 or x.shape[axis] != self.in_channels:
            sizes = ', '.join(self.order).replace('C', str(self.in_channels))
            raise ValueError(f'{self.name} takes ({sizes}), but got {tuple(x.shape)}')
        return x if axis == 1 else x.movedim(axis, 1)

    def fold(self, features: Tensor) -> Tensor:
        """Invert :meth:`unfold`."""
        axis = self.order.index('C')
        return features if axis == 1 else features.movedim(1, axis)

    def split(self, features: Tensor, num_heads: int | None = None) -> Tensor:
        """``(B, C, *size)`` to ``(G, h, N, C / h)``."""
        heads = num_heads or self.num_heads
        # ONNX has unflatten() only from opset 13 on.
        return (
            features.flatten(2)
            .reshape(
                features.shape[0],
                heads,
                features.shape[1] // heads,
                prod(features.shape[2:]),
            )
            .transpose(2, 3)
        )

    def merge(self, tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Invert :meth:`split` for features of the given shape.

        One token stands for tokens that are the same at all positions.
        """
        size = shape[2:]
        # numel() would be a constant in a traced graph.
        tokens = tokens.expand(-1, -1, prod(size), -1)
        features = tokens.transpose(2, 3).flatten(1, 2)
        return features.reshape(*features.shape[:2], *size)


class ClipLayout(TokenLayout):
    """Layout of clips in which positions attend along some axes only.

    Args:
        name (str): Name of the block in messages.
        in_channels (int): Channels of its input.
        ndim (int): 3.
        num_heads (int): Heads that the channels are split into.
        order (str): ``'BCTHW'``.
        axes (str): ``'spacetime'``, ``'space'`` or ``'time'``.
        num_frames (int, optional): Frames of a clip, if they are part of the
            batch of the input.
        group_size (int, optional): Successive frames that attend to each
            other. None stands for all.
    """

    #: Dimensions of (batch, channels, groups of frames, frames of a group,
    #: height, width): those that number the groups, and those inside of one.
    _DIMS = dict(
        spacetime=((0, 2), (3, 4, 5)),
        space=((0, 2, 3), (4, 5)),
        time=((0, 4, 5, 2), (3,)),
    )

    def __init__(
        self,
        name: str,
        in_channels: int,
        ndim: int,
        num_heads: int,
        order: str,
        axes: str,
        num_frames: int | None,
        group_size: int | None,
    ) -> None:
        super().__init__(name, in_channels, ndim, num_heads, order)
        self.axes = axes
        self.num_frames = num_frames
        self.group_size = group_size

    def unfold(self, x: Tensor) -> Tensor:
        frames = self.num_frames
        if frames is not None:
            if x.dim() != 4 or x.shape[1] != self.in_channels:
                raise ValueError(
                    f'{self.name} with num_frames={frames} takes '
                    f'(B * {frames}, {self.in_channels}, H, W), but got '
                    f'{tuple(x.shape)}'
                )
            if x.shape[0] % frames:
                raise ValueError(
                    f'num_frames={frames} does not divide the batch of '
                    f'{x.shape[0]} images. It is the number of frames at '
                    'this place of the model: the length of the clips of the '
                    'data pipeline, over the temporal strides so far (C2D '
                    'halves it after its first stage).'
                )
            x = x.reshape(x.shape[0] // frames, frames, *x.shape[1:])
            x = x.transpose(1, 2)
        x = super().unfold(x)
        if self.group_size and x.shape[2] % self.group_size:
            raise ValueError(
                f'group_size={self.group_size} does not divide the '
                f'{x.shape[2]} frames of the input'
            )
        return x

    def fold(self, features: Tensor) -> Tensor:
        if self.num_frames is None:
            return features
        return features.transpose(1, 2).flatten(0, 1)

    def split(self, features: Tensor, num_heads: int | None = None) -> Tensor:
        if self._is_whole:
            return super().split(features, num_heads)
        outside, inside = self._DIMS[self.axes]
        groups = features.reshape(self._sizes(features.shape)).permute(
            *outside, 1, *inside
        )
        groups = groups.flatten(0, len(outside) - 1)
        return super().split(groups, num_heads)

    def merge(self, tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
        if self._is_whole:
            return super().merge(tokens, shape)
        outside, inside = self._DIMS[self.axes]
        sizes = self._sizes(shape)
        groups = super().merge(tokens, (0, 0, *(sizes[d] for d in inside)))
        groups = groups.reshape(*(sizes[d] for d in outside), *groups.shape[1:])
        order = (*outside, 1, *inside)
        return groups.permute([order.index(d) for d in range(6)]).flatten(2, 3)

    @property
    def _is_whole(self) -> bool:
        return self.axes == 'spacetime' and not self.group_size

    def _sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Batch, channels, groups of frames, frames of a group, H, W."""
        batch, channels, frames, height, width = shape
        group = self.group_size or frames
        return batch, channels, frames // group, group, height, width
