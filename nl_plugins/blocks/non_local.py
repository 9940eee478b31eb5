"""Non-local blocks in one, two and three dimensions.

Letters as in :mod:`nl_plugins.blocks.base`.
"""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

from mmcv import cnn

from ..registry import MODELS
from .base import NonLocalBlock
from .checks import check_pool_size, check_positive
from .layout import ClipLayout

AXES = ('spacetime', 'space', 'time')
#: Names of the positional arguments after ``in_channels``.
_POSITIONAL = [
    name
    for name, parameter in inspect.signature(NonLocalBlock).parameters.items()
    if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
][1:]


def named_arguments(args: Sequence, kwargs: dict) -> dict:
    """The arguments of a block after ``in_channels``, by name."""
    return dict(zip(_POSITIONAL, args)) | kwargs


@MODELS.register_module()
class NonLocal1d(NonLocalBlock):
    """Non-local block for sequences, ``(B, C, N)``; see :class:`NonLocal2d`.

    With ``layout='BNC'`` it takes the tokens of a transformer, ``(B, N, C)``.
    ``sub_sample`` pools by 2.
    """

    ndim = 1
    pool_size = (2,)


@MODELS.register_module()
class NonLocal2d(NonLocalBlock):
    r"""Non-local block for images, ``(B, C, H, W)``.

    .. math:: z_i = W_z\, \frac{1}{C(x)} \sum_j f(x_i, x_j)\, g(x_j) + x_i

    Source: `Non-local Neural Networks <https://arxiv.org/abs/1711.07971>`_,
    eq. 1 and 6. It has the constructor arguments, the state dict keys and the
    results of mmcv's block of this name, without its ``N x N`` attention map.

    Args:
        in_channels (int): Channels ``C`` of the input.
        reduction (int): ``C // reduction`` is the default of ``key_channels``
            and ``value_channels``. Defaults to 2.
        use_scale (bool): Divide the logits of the embedded Gaussian by the
            square root of the key's channels in one head. Defaults to True.
        conv_cfg (dict, optional): Type of the 1 x 1 convolutions. Defaults
            to None, ``Conv1d``, ``Conv2d`` or ``Conv3d``.
        norm_cfg (dict, optional): Norm after the output convolution.
            Defaults to None.
        mode (str): Pairwise function, ``'gaussian'``,
            ``'embedded_gaussian'``, ``'dot_product'`` or
            ``'concatenation'``. Defaults to ``'embedded_gaussian'``.
        sub_sample (bool | str): Max-pool key and value: True after their
            projections, as in the paper and mmcv, ``'before'`` them, as in
            the paper's video code. Defaults to False.
        zeros_init (bool): Initialize the block to an identity. Defaults to
            True.
        std (float): Standard deviation of the initial projections. Defaults
            to 0.01.
        key_channels (int, optional): Channels of query and key. Defaults to
            None, ``in_channels // reduction``.
        value_channels (int, optional): Channels of the value. Defaults to
            None, ``in_channels // reduction``, or ``in_channels`` without an
            output layer.
        share_query_key (bool): Query and key are one projection, ``theta``,
            as in `OCNet <https://arxiv.org/abs/1809.00916>`_. Defaults to
            False.
        num_heads (int): Heads into which the channels of query, key and
            value are split, each with its own attention weights, as in
            `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_.
            The number of parameters does not change. Defaults to 1.
        pool_size (int | Sequence[int], optional): Kernel and stride of the
            pooling. Defaults to None, 2 in space and 1 in time.
        gate (str, optional): ``'scalar'`` multiplies what a position attends
            to by one learned factor, initialized to 0, as in `SAGAN
            <https://arxiv.org/abs/1805.08318>`_, eq. 3. Defaults to None.
        output_layer (bool, optional): Whether there is an output convolution
            :math:`W_z`. Without it the values are added to the input, so
            ``value_channels`` is ``in_channels``, and the value projection
            starts at zero if there is no gate. Defaults to None, True without
            a gate and False with one. SAGAN's code has both.
        projection_cfg (dict[str, dict], optional): Arguments of the layers,
            those of mmcv's ``ConvModule``, by projection: ``bias`` and
            ``with_spectral_norm`` of ``'query'``, ``'key'``, ``'value'`` and
            ``'output'``, ``norm_cfg`` and ``act_cfg`` of ``'query'`` and
            ``'key'``. SAGAN has spectral norm, `OCNet
            <https://arxiv.org/abs/1809.00916>`_ a batch norm after the query
            and the key, the code of the DNL paper no bias in the value.
            Defaults to None, a bias and no norm.
        positional_encoding (str, optional): ``'sine'`` adds sines and cosines
            of the coordinates to the input of query and key, not to that of
            the value, as in the attention of `DETR
            <https://arxiv.org/abs/2005.12872>`_, in its appendix: without it the
            block does not see where a position is. Defaults to None.
        layout (str, optional): Order of the dimensions of input and output,
            ``'BCHW'`` or ``'BHWC'``; of the 1d blocks ``'BCN'`` or, for the
            tokens of a transformer, ``'BNC'``. Defaults to None, channels
            first.
        with_cp (bool): Recompute projections and attention in the backward
            pass instead of storing what they need. Defaults to False.

    Raises:
        ValueError: If an argument has a value that is not allowed.
    """

    ndim = 2
    pool_size = (2, 2)


@MODELS.register_module()
class NonLocal3d(NonLocalBlock):
    """Non-local block for clips, ``(B, C, T, H, W)``.

    Args:
        in_channels (int): Channels ``C`` of the input.
        args, kwargs: As in :class:`NonLocal2d`.
        axes (str): What a position attends to: all positions of all frames
            (``'spacetime'``), the positions of its frame (``'space'``) or the
            same pixel in all frames (``'time'``, with a default ``pool_size``
            of 2 in time). Section 4.3 of the paper. Defaults to
            ``'spacetime'``.
        num_frames (int, optional): Length ``T`` of the clips if the input is
            ``(B * T, C, H, W)``, as in a frame-wise 2D backbone. Defaults to
            None.
        group_size (int, optional): Number of successive frames that attend
            to each other, as in the paper's video code for long clips.
            Defaults to None, all frames.

    Raises:
        ValueError: If an argument has a value that is not allowed.
    """

    ndim = 3
    pool_size = (1, 2, 2)
    layout: ClipLayout

    def __init__(
        self,
        in_channels: int,
        *args: Any,
        axes: str = 'spacetime',
        num_frames: int | None = None,
        group_size: int | None = None,
        pool_size: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if axes not in AXES:
            raise ValueError(f'axes must be one of {AXES}, but got {axes!r}')
        for name, frames in (('num_frames', num_frames), ('group_size', group_size)):
            if frames is not None:
                check_positive(name, frames)
        if group_size and axes == 'space':
            raise ValueError(
                "axes='space' attends inside of one frame, so "
                'group_size must be None, but got '
                f'{group_size}'
            )
        sub_sample = named_arguments(args, kwargs).get('sub_sample')
        if sub_sample:
            if pool_size is None:
                pool_size = (2, 1, 1) if axes == 'time' else self.pool_size
            _check_pool_size(
                check_pool_size(pool_size, self.ndim, sub_sample), axes, group_size
            )
        super().__init__(
            in_channels,
            *args,
            pool_size=pool_size,
            _layout=partial(
                ClipLayout, axes=axes, num_frames=num_frames, group_size=group_size
            ),
            **kwargs,
        )

    @property
    def axes(self) -> str:
        """What a position attends to."""
        return self.layout.axes

    @property
    def num_frames(self) -> int | None:
        """Frames of a clip, if they are part of the batch."""
        return self.layout.num_frames

    @property
    def group_size(self) -> int | None:
        """Successive frames that attend to each other."""
        return self.layout.group_size


def _check_pool_size(
    pool_size: tuple[int, ...], axes: str, group_size: int | None
) -> None:
    # Pooling must not join positions of different groups.
    outside = dict(spacetime=(), space=(0,), time=(1, 2))[axes]
    if any(pool_size[d] != 1 for d in outside):
        raise ValueError(
            f'pool_size must be 1 outside of the axes {axes!r}, but got '
            f'{pool_size} in time, height and width'
        )
    if group_size and pool_size[0] != 1:
        raise ValueError(
            'pool_size must be 1 in time with group_size, but got '
            f'{pool_size} in time, height and width'
        )


# For code that tests isinstance() of mmcv's blocks.
for _block in NonLocal1d, NonLocal2d, NonLocal3d:
    getattr(cnn, _block.__name__).register(_block)
