"""What the non-local blocks of all dimensions and kinds share.

Letters used in this package: ``B`` batch, ``C`` channels of the input, ``N``
its positions (the product of its spatial or spacetime sizes ``*size``),
``Nk`` those of the keys (fewer than ``N`` with sub-sampling), ``D`` channels
of query and key, ``Dv`` channels of the value. ``G`` groups of positions that
attend to each other (one, but for ``axes`` of clips) and ``h`` heads become
part of the batch, in the order ``(B, G, h)``.
"""
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmengine.model import constant_init, normal_init
from torch import Tensor, nn

from ..functional import (
    concatenation_attention,
    dot_product_attention,
    softmax_attention,
)
from .pointwise import pointwise

MODES = ('gaussian', 'embedded_gaussian', 'dot_product', 'concatenation')
#: Modes whose weights are a softmax.
SOFTMAX_MODES = ('gaussian', 'embedded_gaussian')


class AttentionWeights(NamedTuple):
    """What a block attends to, seen from chosen query positions.

    Attributes:
        pairwise (Tensor, optional): Shape ``(B, Q, *key size)``, the weight
            of every key position for each of the ``Q`` queries, the mean of
            all heads. None where the block has no pairwise term.
        unary (Tensor, optional): Shape ``(B, *key size)``, the weight of
            every key position for all queries alike. None where the block
            has no unary term of its own.
    """
    pairwise: Tensor | None
    unary: Tensor | None


class NonLocalBlock(_NonLocalNd):
    """What the blocks of all dimensions share; see :class:`NonLocal2d`."""

    #: Number of spatial (or spacetime) dimensions that are attended over.
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
                 sub_sample: bool | str = False,
                 zeros_init: bool = True,
                 std: float = 0.01,
                 *,
                 key_channels: int | None = None,
                 value_channels: int | None = None,
                 share_query_key: bool = False,
                 num_heads: int = 1,
                 pool_size: int | Sequence[int] | None = None,
                 gate: str | None = None) -> None:
        # mmcv's constructors fix the widths and the output layer that are
        # free here, so the layers are built here, under mmcv's names.
        nn.Module.__init__(self)
        check_positive('in_channels', in_channels)
        check_positive('reduction', reduction)
        check_positive('num_heads', num_heads)
        if mode not in MODES:
            raise ValueError(f'mode must be one of {MODES}, but got {mode!r}')
        if sub_sample not in (False, True, 'before'):
            raise ValueError("sub_sample must be False, True or 'before', but "
                             f'got {sub_sample!r}')
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
        # A 1 of the command line is True.
        self.sub_sample = sub_sample if sub_sample == 'before' else bool(
            sub_sample)
        self.zeros_init = zeros_init
        self.std = std
        self.share_query_key = share_query_key
        self.num_heads = num_heads
        self.gate = gate
        self.inter_channels = max(in_channels // reduction, 1)
        self._set_channels(key_channels, value_channels)
        if pool_size is not None:
            self._set_pool_size(pool_size)

        self._build_layers(conv_cfg or dict(type=f'Conv{self.ndim}d'),
                           norm_cfg)
        self.init_weights()

    def _build_layers(self, conv_cfg: dict, norm_cfg: dict | None) -> None:

        def projection(channels: int) -> ConvModule:
            return ConvModule(
                self.in_channels, channels, 1, conv_cfg=conv_cfg,
                act_cfg=None)

        self.g = projection(self.value_channels)
        if self.gate:
            self.gamma = nn.Parameter(torch.zeros(1))
        else:
            self.conv_out = ConvModule(
                self.value_channels,
                self.in_channels,
                1,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                act_cfg=None)
        if self.mode != 'gaussian':
            self.theta = projection(self.key_channels)
            if not self.share_query_key:
                self.phi = projection(self.key_channels)
        if self.mode == 'concatenation':
            # mmcv's layer, kept for its name; the weight alone is used.
            self.concat_project = ConvModule(
                2 * self.key_channels,
                1,
                1,
                bias=False,
                act_cfg=dict(type='ReLU'))
        if self.sub_sample:
            size = self.pool_size if self.ndim > 1 else self.pool_size[0]
            self.pool = getattr(nn, f'MaxPool{self.ndim}d')(size)
        if self.sub_sample is True:
            # mmcv's names: they are part of the keys of its checkpoints.
            self.g = nn.Sequential(self.g, self.pool)
            if self.mode == 'gaussian':
                self.phi = self.pool
            elif not self.share_query_key:
                self.phi = nn.Sequential(self.phi, self.pool)

    def _set_channels(self, key_channels: int | None,
                      value_channels: int | None) -> None:
        if self.mode == 'gaussian':
            if key_channels is not None or self.share_query_key:
                raise ValueError(
                    'key_channels must be None and share_query_key False with '
                    "mode='gaussian', which compares the input itself, but "
                    f'got {key_channels} and {self.share_query_key}')
            key_channels = self.in_channels
        elif key_channels is None:
            key_channels = self.inter_channels
        # Without an output layer the value has to fit the input itself.
        if value_channels is None:
            value_channels = (
                self.in_channels if self.gate else self.inter_channels)
        for name, value in (('key_channels', key_channels),
                            ('value_channels', value_channels)):
            check_positive(name, value)
            if value % self.num_heads:
                raise ValueError(f'num_heads must divide {name} ({value}), '
                                 f'but got {self.num_heads}')
        if self.gate and value_channels != self.in_channels:
            raise ValueError(
                "gate='scalar' has no output layer: value_channels must be "
                f'in_channels ({self.in_channels}), but got {value_channels}')
        self.key_channels = key_channels
        self.value_channels = value_channels

    def _set_pool_size(self, pool_size: int | Sequence[int]) -> None:
        sizes = pool_size
        if isinstance(pool_size, int):
            sizes = [pool_size] * self.ndim
        if not self.sub_sample:
            raise ValueError('pool_size is that of sub_sample, which must be '
                             f"True or 'before', but got {self.sub_sample}")
        if len(sizes) != self.ndim or any(
                not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(
                f'pool_size must be {self.ndim} integers of at least 1, but '
                f'got {pool_size!r}')
        self.pool_size = tuple(sizes)

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
        if hasattr(self, 'concat_project'):
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
        features = self._prepare(x)
        y = self._ungroup(
            self._merge_heads(self._aggregate(features)), features.shape)
        if not self.gate:
            y = pointwise(self.conv_out, y, features.is_contiguous())
        if y.dim() != x.dim():  # frames that were in the batch
            y = y.transpose(1, 2).reshape(x.shape)
        return x + y

    @torch.no_grad()
    def attention_weights(self, x: Tensor,
                          positions: Tensor) -> AttentionWeights:
        """Weights with which chosen positions attend to all of the others.

        Takes ``O(Q * Nk)`` memory, not ``O(N * Nk)``.

        Args:
            x (Tensor): Input of the block, shape ``(B, C, *size)``.
            positions (Tensor): Integers of shape ``(Q, len(size))``, the
                indices of the query positions on the grid of ``x``, for
                instance (row, column), or (frame, row, column) of a clip.

        Returns:
            AttentionWeights: ``pairwise``, shape ``(B, Q, *key size)``, and
            ``unary``, which is None here. The weights are those that
            multiply the value: rows of a softmax, or ``f / Nk`` for the dot
            product and the concatenation; 0 where a position does not
            attend (``axes``).

        Raises:
            ValueError: If ``x`` does not fit the block or a position lies
                outside of it.
        """
        x = self._prepare(x)
        size = x.shape[2:]
        integers = not (positions.is_floating_point()
                        or positions.is_complex()
                        or positions.dtype == torch.bool)
        positions = positions.to(x.device, torch.long)
        if (not integers or positions.dim() != 2
                or positions.shape[1] != self.ndim or (positions < 0).any()
                or (positions >= positions.new_tensor(size)).any()):
            raise ValueError(
                f'positions must have the shape (Q, {self.ndim}), integers '
                f'inside of {tuple(size)}, but got {positions.tolist()}')
        strides = [size[d + 1:].numel() for d in range(self.ndim)]
        flat = (positions * positions.new_tensor(strides)).sum(dim=1)
        return AttentionWeights(
            self._pairwise_weights(x, flat), self._unary_weights(x))

    def _pairwise_weights(self, x: Tensor, places: Tensor) -> Tensor | None:
        """Weights of the query positions with some flat indices."""
        query_grid = self._index_grid(x.shape[2:], x.device)
        key_grid = self._index_grid(self._key_size(x), x.device)
        lead = (len(x), len(query_grid), self.num_heads)
        query, key, key_bias = (
            t if t is None else t.unflatten(0, lead)
            for t in self._query_key_and_bias(x, self._key_source(x)))
        # Where the queries have gone: their group, and the row in it.
        location = torch.empty_like(query_grid.flatten())
        location[query_grid.flatten()] = torch.arange(
            location.numel(), device=x.device)
        group = location[places] // query_grid.shape[1]
        row = location[places] % query_grid.shape[1]
        weights = query.new_zeros(len(x), len(places), key_grid.numel())
        for index in group.unique():
            chosen = group == index
            found = self._weights(query[:, index][:, :, row[chosen]],
                                  key[:, index],
                                  None if key_bias is None else
                                  key_bias[:, index])
            full = weights[:, chosen]
            full[..., key_grid[index]] = found.mean(dim=1).to(full.dtype)
            weights[:, chosen] = full
        return weights.unflatten(2, self._key_size(x))

    def _weights(self, query: Tensor, key: Tensor,
                 key_bias: Tensor | None) -> Tensor:
        """The map of some queries, ``(B, h, Q, D)`` to ``(B, h, Q, Nk)``."""
        if self.mode == 'concatenation':
            query_score, key_score = self._scores(query, key)
            weights = torch.relu(
                query_score.unsqueeze(-1) + key_score.unsqueeze(-2))
        else:
            weights = self._logit_scale() * query @ key.transpose(-1, -2)
        if self.mode not in SOFTMAX_MODES:
            return weights / weights.shape[-1]
        if key_bias is not None:
            weights = weights + key_bias.unsqueeze(-2)
        return weights.softmax(dim=-1)

    def _unary_weights(self, x: Tensor) -> Tensor | None:
        """Weights that all queries share, ``(B, *key size)``."""
        return None

    def _aggregate(self, x: Tensor) -> Tensor:
        """The attended values, ``(B, C, *size)`` to ``(B, N, Dv)``."""
        source = self._key_source(x)
        return self._attend(*self._query_key_and_bias(x, source),
                            self._value(source))

    def _attend(self, query: Tensor, key: Tensor, key_bias: Tensor | None,
                value: Tensor) -> Tensor:
        """The pairwise term, scaled by the gate where there is one."""
        if self.mode == 'dot_product':
            y = dot_product_attention(query, key, value)
        elif self.mode == 'concatenation':
            scores = (
                score.flatten(0, 1) for score in self._scores(
                    self._unflatten_heads(query), self._unflatten_heads(key)))
            y = concatenation_attention(*scores, value)
        else:
            y = softmax_attention(query, key, value, self._logit_scale(),
                                  key_bias)
        return self.gamma.to(y.dtype) * y if self.gate else y

    def _query_key_and_bias(
            self, x: Tensor,
            source: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Query, key, and a term of the logits that the keys alone decide."""
        query, key = self._query_and_key(x, source)
        return self._split_heads(query), self._split_heads(key), None

    def _query_and_key(self, x: Tensor,
                       source: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key of all heads, ``(B, N, D)`` and ``(B, Nk, D)``."""
        if self.mode == 'gaussian':
            query, key = x, source
        else:
            query = pointwise(self.theta, x)
            if not self.share_query_key:
                return self._group(query), self._group(
                    pointwise(self.phi, source))
            key = query if source is x else pointwise(
                self.theta, source)
        if self.sub_sample is True:
            key = self.pool(key)
        return self._group(query), self._group(key)

    def _value(self, source: Tensor) -> Tensor:
        """The value, ``(B, C, *size)`` to ``(B, Nk, Dv)``."""
        return self._split_heads(self._group(pointwise(self.g, source)))

    def _key_source(self, x: Tensor) -> Tensor:
        """What key and value are made of."""
        return self.pool(x) if self.sub_sample == 'before' else x

    def _scores(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves of ``w_f``, applied to ``(..., h, N, D)``."""
        weight = self.concat_project.conv.weight.reshape(
            2, self.num_heads, -1, 1)
        return (query @ weight[0])[..., 0], (key @ weight[1])[..., 0]

    def _logit_scale(self) -> float:
        """Factor of the logits of a softmax."""
        if self.mode == 'embedded_gaussian' and self.use_scale:
            return (self.key_channels // self.num_heads)**-0.5
        return 1.0

    def _group(self, features: Tensor) -> Tensor:
        """``(B, C, *size)`` to ``(B, N, C)``, what attends to each other."""
        return features.flatten(2).transpose(1, 2)

    def _ungroup(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of :meth:`_group`, for an input of a shape.

        Tokens that are the same for all positions may come as one.
        """
        size = shape[2:]
        # Not numel(): in a trace that would be a constant.
        tokens = tokens.expand(-1, prod(size), -1).transpose(1, 2)
        return tokens.reshape(*tokens.shape[:2], *size)

    def _split_heads(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B * h, N, C / h)``."""
        if self.num_heads == 1:
            return tokens
        # Not unflatten() in this module: ONNX has it from opset 13 on.
        return tokens.reshape(
            *tokens.shape[:2], self.num_heads,
            tokens.shape[2] // self.num_heads).transpose(1, 2).flatten(0, 1)

    def _merge_heads(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`_split_heads`."""
        if self.num_heads == 1:
            return tokens
        return self._unflatten_heads(tokens).transpose(1, 2).flatten(2)

    def _unflatten_heads(self, tokens: Tensor) -> Tensor:
        """``(B * h, N, C)`` to ``(B, h, N, C)``."""
        return tokens.reshape(tokens.shape[0] // self.num_heads,
                              self.num_heads, *tokens.shape[1:])

    def _index_grid(self, size: tuple[int, ...],
                    device: torch.device) -> Tensor:
        """Flat indices of all positions, grouped, ``(G, N)``."""
        grid = torch.arange(prod(size), device=device)
        return self._group(grid.reshape(1, 1, *size)).squeeze(-1)

    def _key_size(self, x: Tensor) -> tuple[int, ...]:
        if not self.sub_sample:
            return tuple(x.shape[2:])
        return tuple(s // p for s, p in zip(x.shape[2:], self.pool_size))

    def _prepare(self, x: Tensor) -> Tensor:
        """The input as ``(B, C, *size)``, checked."""
        if x.dim() != self.ndim + 2 or x.shape[1] != self.in_channels:
            sizes = {1: 'L', 2: 'H, W', 3: 'T, H, W'}[self.ndim]
            raise ValueError(
                f'{type(self).__name__} takes (B, {self.in_channels}, '
                f'{sizes}), but got {tuple(x.shape)}')
        if self.sub_sample and any(
                s < p for s, p in zip(x.shape[2:], self.pool_size)):
            raise ValueError(
                f'{type(self).__name__} pools by {self.pool_size}, which the '
                f'size {tuple(x.shape[2:])} of the input is too small for')
        return x


def check_positive(name: str, value: int) -> None:
    """Raise a ValueError that names what is no integer of at least 1."""
    # True is an int: mmcv has a flag where `reduction` stands here.
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{name} must be an integer of at least 1, but got '
                         f'{value!r}')
