"""Non-local blocks in one, two and three dimensions.

Letters used in this file: ``B`` batch, ``C`` channels of the input, ``N`` its
positions (the product of its spatial or spacetime sizes ``*size``), ``Nk``
those of the keys (fewer than ``N`` with sub-sampling), ``D`` channels of query
and key, ``Dv`` channels of the value.
"""
from typing import NamedTuple

import torch
from mmcv import cnn
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmengine.model import constant_init, normal_init
from torch import Tensor, nn

from ..functional import (
    concatenation_attention,
    dot_product_attention,
    softmax_attention,
)
from ..registry import MODELS

MODES = ('gaussian', 'embedded_gaussian', 'dot_product', 'concatenation')


class AttentionWeights(NamedTuple):
    """What a block attends to, seen from chosen query positions.

    Attributes:
        pairwise (Tensor, optional): Shape ``(B, Q, *key size)``, the weight
            of every key position for each of the ``Q`` queries. None where
            the block has no pairwise term.
        unary (Tensor, optional): Shape ``(B, *key size)``, the weight of
            every key position for all queries alike. None where the block
            has no unary term.
    """
    pairwise: Tensor | None
    unary: Tensor | None


class NonLocalBlock(_NonLocalNd):
    """What the blocks of all dimensions share; see :class:`NonLocal2d`."""

    #: Number of spatial (or spacetime) dimensions of the input.
    ndim: int
    #: Kernel and stride of the pooling that ``sub_sample`` switches on.
    pool_size: tuple[int, ...]

    def __init__(self,
                 in_channels: int,
                 reduction: int = 2,
                 use_scale: bool = True,
                 conv_cfg: dict | None = None,
                 norm_cfg: dict | None = None,
                 mode: str = 'embedded_gaussian',
                 sub_sample: bool = False,
                 zeros_init: bool = True,
                 std: float = 0.01,
                 *,
                 key_channels: int | None = None,
                 value_channels: int | None = None,
                 gate: str | None = None) -> None:
        # mmcv's constructors fix the widths and the output layer that are
        # free here, so the layers are built here, under mmcv's names.
        nn.Module.__init__(self)
        _check_positive('in_channels', in_channels)
        _check_positive('reduction', reduction)
        if mode not in MODES:
            raise ValueError(f'mode must be one of {MODES}, but got {mode!r}')
        if gate not in (None, 'scalar'):
            raise ValueError(f"gate must be None or 'scalar', got {gate!r}")
        if gate and norm_cfg:
            raise ValueError("gate='scalar' replaces the output layer, so it "
                             f'has no norm: norm_cfg must be None, but got '
                             f'{norm_cfg}')
        self.in_channels = in_channels
        self.reduction = reduction
        self.use_scale = use_scale
        self.mode = mode
        self.sub_sample = sub_sample
        self.zeros_init = zeros_init
        self.std = std
        self.gate = gate
        self.inter_channels = max(in_channels // reduction, 1)
        if mode == 'gaussian':
            if key_channels is not None:
                raise ValueError(
                    "key_channels must be None with mode='gaussian', which "
                    f'compares the input itself, but got {key_channels}')
            self.key_channels = in_channels
        else:
            self.key_channels = (
                self.inter_channels if key_channels is None else key_channels)
        # Without an output layer the value has to fit the input itself.
        if value_channels is None:
            value_channels = in_channels if gate else self.inter_channels
        self.value_channels = value_channels
        _check_positive('key_channels', self.key_channels)
        _check_positive('value_channels', self.value_channels)
        if gate and self.value_channels != in_channels:
            raise ValueError(
                "gate='scalar' has no output layer: value_channels must be "
                f'in_channels ({in_channels}), but got {value_channels}')

        conv_cfg = conv_cfg or dict(type=f'Conv{self.ndim}d')

        def pointwise(channels: int) -> ConvModule:
            return ConvModule(
                in_channels, channels, 1, conv_cfg=conv_cfg, act_cfg=None)

        self.g = pointwise(self.value_channels)
        if gate:
            self.gamma = nn.Parameter(torch.zeros(1))
        else:
            self.conv_out = ConvModule(
                self.value_channels,
                in_channels,
                1,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                act_cfg=None)
        if mode != 'gaussian':
            self.theta = pointwise(self.key_channels)
            self.phi = pointwise(self.key_channels)
        if mode == 'concatenation':
            # mmcv's layer, kept for its name; the weight alone is used.
            self.concat_project = ConvModule(
                2 * self.key_channels,
                1,
                1,
                bias=False,
                act_cfg=dict(type='ReLU'))
        if sub_sample:
            self.pool = getattr(nn, f'MaxPool{self.ndim}d')(self.pool_size)
            self.g = nn.Sequential(self.g, self.pool)
            self.phi = self.pool if mode == 'gaussian' else nn.Sequential(
                self.phi, self.pool)
        self.init_weights()

    def init_weights(self) -> None:
        """Set the weights of a new block.

        The projections are normal with deviation ``std``. With
        ``zeros_init`` the output layer (its norm where it has one) is zero,
        so the block is an identity. A gate starts at 0 in any case.
        """
        for name in ('g', 'theta', 'phi'):
            layer = getattr(self, name, None)
            if isinstance(layer, nn.Sequential):
                layer = layer[0]
            if isinstance(layer, ConvModule):
                normal_init(layer.conv, std=self.std)
        if self.mode == 'concatenation':
            self.concat_project.init_weights()
        if self.gate:
            nn.init.zeros_(self.gamma)
            return
        last = self.conv_out.norm if self.conv_out.with_norm else (
            self.conv_out.conv)
        if self.zeros_init:
            constant_init(last, 0)
        else:
            normal_init(last, std=self.std)

    def forward(self, x: Tensor) -> Tensor:
        """Add to every position what it attends to.

        Args:
            x (Tensor): Shape ``(B, C, *size)``.

        Returns:
            Tensor: Same shape.

        Raises:
            ValueError: If the rank or the channels of ``x`` do not fit.
        """
        self._check_input(x)
        y = self._aggregate(x).transpose(1, 2).reshape(
            len(x), self.value_channels, *x.shape[2:])
        return x + (y if self.gate else self.conv_out(y))

    @torch.no_grad()
    def attention_weights(self, x: Tensor,
                          positions: Tensor) -> AttentionWeights:
        """Weights with which chosen positions attend to all of the others.

        Takes ``O(Q * Nk)`` memory, not ``O(N * Nk)``.

        Args:
            x (Tensor): Input of the block, shape ``(B, C, *size)``.
            positions (Tensor): Integers of shape ``(Q, len(size))``, the
                indices of the query positions on the grid of ``x``, for
                instance (row, column).

        Returns:
            AttentionWeights: ``pairwise``, shape ``(B, Q, *key size)``, and
            ``unary``, which is None here. The weights are those that
            multiply the value: rows of a softmax, or ``f / Nk`` for the dot
            product and the concatenation.

        Raises:
            ValueError: If ``x`` does not fit the block or a position lies
                outside of it.
        """
        self._check_input(x)
        size = x.shape[2:]
        limit = positions.new_tensor(size)
        if (positions.dim() != 2 or positions.shape[1] != self.ndim
                or (positions < 0).any() or (positions >= limit).any()):
            raise ValueError(
                f'positions must have the shape (Q, {self.ndim}) with indices '
                f'inside of {tuple(size)}, but got {positions.tolist()}')
        strides = [size[d + 1:].numel() for d in range(self.ndim)]
        rows = (positions * positions.new_tensor(strides)).sum(dim=1)
        query, key = self._query_and_key(x)
        query = query[:, rows]
        if self.mode == 'concatenation':
            query_score, key_score = self._scores(query, key)
            weights = torch.relu(
                query_score.unsqueeze(2) + key_score.unsqueeze(1))
        else:
            weights = self._logit_scale() * query @ key.transpose(1, 2)
        if self.mode in ('gaussian', 'embedded_gaussian'):
            weights = weights.softmax(dim=-1)
        else:
            weights = weights / weights.shape[-1]
        return AttentionWeights(
            weights.unflatten(2, self._key_size(size)), None)

    def _aggregate(self, x: Tensor) -> Tensor:
        """The attended values, ``(B, C, *size)`` to ``(B, N, Dv)``."""
        return self._attend(x, self._value(x))

    def _value(self, x: Tensor) -> Tensor:
        """The value, ``(B, C, *size)`` to ``(B, Nk, Dv)``."""
        return _flatten(self.g(x))

    def _attend(self, x: Tensor, value: Tensor) -> Tensor:
        """The pairwise term, scaled by the gate where there is one."""
        query, key = self._query_and_key(x)
        if self.mode == 'dot_product':
            y = dot_product_attention(query, key, value)
        elif self.mode == 'concatenation':
            y = concatenation_attention(*self._scores(query, key), value)
        else:
            y = softmax_attention(query, key, value, self._logit_scale())
        return self.gamma * y if self.gate else y

    def _query_and_key(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key, ``(B, N, D)`` and ``(B, Nk, D)``."""
        if self.mode == 'gaussian':
            key = self.pool(x) if self.sub_sample else x
            return _flatten(x), _flatten(key)
        return _flatten(self.theta(x)), _flatten(self.phi(x))

    def _scores(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves of ``w_f``, applied to query and to key."""
        weights = self.concat_project.conv.weight.flatten().chunk(2)
        return query @ weights[0], key @ weights[1]

    def _logit_scale(self) -> float:
        """Factor of the logits of a softmax."""
        if self.mode == 'embedded_gaussian' and self.use_scale:
            return self.key_channels**-0.5
        return 1.0

    def _key_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        if not self.sub_sample:
            return size
        return tuple(s // p for s, p in zip(size, self.pool_size))

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != self.ndim + 2 or x.shape[1] != self.in_channels:
            sizes = ('T, H, W' if self.ndim == 3 else 'H, W'
                     if self.ndim == 2 else 'L')
            raise ValueError(
                f'{type(self).__name__} takes (B, {self.in_channels}, '
                f'{sizes}), but got {tuple(x.shape)}')


@MODELS.register_module()
class NonLocal1d(NonLocalBlock, cnn.NonLocal1d):
    """Non-local block on sequences, ``(B, C, L)``; see :class:`NonLocal2d`.

    ``sub_sample`` pools by 2.
    """
    ndim = 1
    pool_size = (2, )


@MODELS.register_module()
class NonLocal2d(NonLocalBlock, cnn.NonLocal2d):
    r"""Non-local block on images, ``(B, C, H, W)``.

    .. math:: z_i = W_z\, \frac{1}{C(x)} \sum_j f(x_i, x_j)\, g(x_j) + x_i

    Source: `Non-local Neural Networks <https://arxiv.org/abs/1711.07971>`_,
    eq. 1 and 6. Same constructor arguments, same keys in the state dict and
    same results as mmcv's block of this name, without its ``N x N`` map.

    Args:
        in_channels (int): Channels ``C`` of the input.
        reduction (int): ``C // reduction`` is the default of ``key_channels``
            and ``value_channels``. Defaults to 2.
        use_scale (bool): Scale the logits of the embedded Gaussian by
            ``key_channels ** -0.5``. Defaults to True.
        conv_cfg (dict, optional): Type of the 1 x 1 convolutions. Defaults
            to None, the plain one of the block's dimension.
        norm_cfg (dict, optional): Norm after the output convolution.
            Defaults to None.
        mode (str): Pairwise function, ``'gaussian'``,
            ``'embedded_gaussian'``, ``'dot_product'`` or
            ``'concatenation'``. Defaults to ``'embedded_gaussian'``.
        sub_sample (bool): Max-pool key and value by 2 in space. Defaults to
            False.
        zeros_init (bool): Start as an identity. Defaults to True.
        std (float): Deviation of the initial projections. Defaults to 0.01.
        key_channels (int, optional): Channels of query and key. Defaults to
            None, ``in_channels // reduction``.
        value_channels (int, optional): Channels of the value. Defaults to
            None, ``in_channels // reduction``, or ``in_channels`` with a
            gate.
        gate (str, optional): ``'scalar'`` replaces the output convolution by
            one learned factor that starts at 0, as in `SAGAN
            <https://arxiv.org/abs/1805.08318>`_. Defaults to None.

    Raises:
        ValueError: If an argument has a value that is not allowed.
    """
    ndim = 2
    pool_size = (2, 2)


@MODELS.register_module()
class NonLocal3d(NonLocalBlock, cnn.NonLocal3d):
    """Non-local block on clips, ``(B, C, T, H, W)``; see :class:`NonLocal2d`.

    ``sub_sample`` pools by 2 in space and keeps all frames.
    """
    ndim = 3
    pool_size = (1, 2, 2)


def _flatten(x: Tensor) -> Tensor:
    """``(B, C, *size)`` to ``(B, N, C)``."""
    return x.flatten(2).transpose(1, 2)


def _check_positive(name: str, value: int) -> None:
    # True is an int: mmcv has a flag where `reduction` stands here.
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{name} must be an integer of at least 1, but got '
                         f'{value!r}')
