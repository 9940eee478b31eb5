"""From feature maps to tokens that attend to each other, and back.

Letters as in :mod:`nl_plugins.blocks.base`.
"""

from math import prod

import torch
from torch import Tensor

_SIZES = {1: 'L', 2: 'H, W', 3: 'T, H, W'}


class TokenLayout:
    """Every position attends to all others.

    Args:
        name (str): Name of the block in messages.
        in_channels (int): Channels of its input.
        ndim (int): Sizes of the input after batch and channels.
        num_heads (int): Heads that the channels are split into.
    """

    def __init__(self, name: str, in_channels: int, ndim: int, num_heads: int) -> None:
        self.name = name
        self.in_channels = in_channels
        self.ndim = ndim
        self.num_heads = num_heads

    def unfold(self, x: Tensor) -> Tensor:
        """The input of a block as ``(B, C, *size)``, checked.

        Raises:
            ValueError: Its rank or channels do not fit.
        """
        if x.dim() != self.ndim + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'{self.name} takes (B, {self.in_channels}, '
                f'{_SIZES[self.ndim]}), but got {tuple(x.shape)}'
            )
        return x

    def fold(self, y: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of :meth:`unfold`, for an input of a shape."""
        return y

    def split(self, features: Tensor, num_heads: int | None = None) -> Tensor:
        """``(B, C, *size)`` to ``(G, h, N, C / h)``."""
        heads = num_heads or self.num_heads
        # Not unflatten(): ONNX has it from opset 13 on.
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

    def merge(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of :meth:`split`, for features of a shape.

        Tokens that are the same for all positions may come as one.
        """
        size = shape[2:]
        # Not numel(): in a trace that would be a constant.
        tokens = tokens.expand(-1, -1, prod(size), -1)
        features = tokens.transpose(2, 3).flatten(1, 2)
        return features.reshape(*features.shape[:2], *size)


class ClipLayout(TokenLayout):
    """Positions of clips that attend to those of some axes.

    Args:
        name (str): Name of the block in messages.
        in_channels (int): Channels of its input.
        num_heads (int): Heads that the channels are split into.
        axes (str): ``'spacetime'``, ``'space'`` or ``'time'``.
        num_frames (int, optional): Frames of a clip that are in the batch.
        group_size (int, optional): Successive frames that attend to each
            other.
    """

    #: Of (batch, channels, groups of frames, frames of a group, height,
    #: width): what parts the groups, and what is inside of one.
    _DIMS = dict(
        spacetime=((0, 2), (3, 4, 5)),
        space=((0, 2, 3), (4, 5)),
        time=((0, 4, 5, 2), (3,)),
    )

    def __init__(
        self,
        name: str,
        in_channels: int,
        num_heads: int,
        axes: str,
        num_frames: int | None,
        group_size: int | None,
    ) -> None:
        super().__init__(name, in_channels, 3, num_heads)
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

    def fold(self, y: Tensor, shape: torch.Size) -> Tensor:
        if self.num_frames is None:
            return y
        return y.transpose(1, 2).reshape(shape)

    def split(self, features: Tensor, num_heads: int | None = None) -> Tensor:
        if self._is_whole:
            return super().split(features, num_heads)
        outside, inside = self._DIMS[self.axes]
        groups = features.reshape(self._sizes(features.shape)).permute(
            *outside, 1, *inside
        )
        groups = groups.flatten(0, len(outside) - 1)
        return super().split(groups, num_heads)

    def merge(self, tokens: Tensor, shape: torch.Size) -> Tensor:
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

    def _sizes(self, shape: torch.Size) -> tuple[int, ...]:
        """Batch, channels, groups of frames, frames of a group, H, W."""
        batch, channels, frames, height, width = shape
        group = self.group_size or frames
        return batch, channels, frames // group, group, height, width
