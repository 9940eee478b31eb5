"""The base class of all non-local blocks.

Letters used in this package: ``B`` batch, ``C`` channels of the input,
``*size`` its spatial or spacetime sizes, ``N`` query positions (the product
of ``*size``), ``Nk`` key positions (fewer than ``N`` with sub-sampling),
``h`` heads, ``D`` channels of query and key in one head, ``Dv`` channels of
the value in one head, ``G`` groups of positions that attend to each other: the
batch, times the groups of one clip (``axes`` and ``group_size`` of the 3d
blocks).
"""

from collections.abc import Callable, Sequence

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..functional import (
    concatenation_attention,
    dot_product_attention,
    softmax_attention,
)
from .attention_maps import AttentionWeights, attention_weights
from .checks import (
    check_layout,
    check_options,
    check_pool_size,
    check_positional_encoding,
    check_projections,
    check_widths,
)
from .layers import build_layers, initialize_layers
from .layout import Projections, TokenLayout
from .pointwise import Pointwise
from .sine_encoding import with_sine_encoding


class NonLocalBlock(nn.Module):
    """Base class of the blocks; for the arguments see :class:`NonLocal2d`."""

    #: Name of the block in mmcv's plugin layers.
    _abbr_ = 'nonlocal_block'
    #: Number of spatial or spacetime dimensions of the input.
    ndim: int
    #: Kernel and stride of the pooling with ``sub_sample``.
    pool_size: tuple[int, ...]
    #: Whether there is an attention map of pairs, and one for all queries.
    has_pairwise_term, has_unary_term = True, False
    #: Its layers, of which it has those that its options need.
    theta: Pointwise
    phi: nn.Module
    g: nn.Module
    pool: nn.Module
    concat_project: ConvModule
    gamma: nn.Parameter
    conv_out: Pointwise

    def __init__(
        self,
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
        gate: str | None = None,
        output_layer: bool | None = None,
        projection_cfg: dict[str, dict] | None = None,
        positional_encoding: str | None = None,
        layout: str | None = None,
        with_cp: bool = False,
        _has_query_and_key: bool = True,
        _layout: Callable[[str, int, int, int, str], TokenLayout] = TokenLayout,
    ) -> None:
        super().__init__()
        if output_layer is None:
            output_layer = not gate
        check_options(
            in_channels,
            reduction,
            num_heads,
            mode,
            sub_sample,
            gate,
            output_layer,
            conv_cfg,
            norm_cfg,
            std,
        )
        inner = max(in_channels // reduction, 1)
        key_channels, value_channels = check_widths(
            in_channels,
            inner,
            key_channels,
            value_channels,
            mode,
            share_query_key,
            num_heads,
            output_layer,
        )
        if pool_size is not None:
            self.pool_size = check_pool_size(pool_size, self.ndim, sub_sample)
        order = check_layout(layout, self.ndim)
        check_positional_encoding(
            positional_encoding, in_channels, self.ndim, _has_query_and_key
        )
        has_layers = _has_query_and_key and mode != 'gaussian'
        projection_cfg = check_projections(
            projection_cfg,
            dict(
                query=has_layers,
                key=has_layers and not share_query_key,
                value=True,
                output=output_layer,
            ),
            with_cp,
        )
        self.in_channels = in_channels
        self.inter_channels = inner
        self.key_channels = key_channels
        self.value_channels = value_channels
        self.reduction = reduction
        self.use_scale = use_scale
        self.mode = mode
        # --cfg-options gives True as 1.
        self.sub_sample = sub_sample if sub_sample == 'before' else bool(sub_sample)
        self.zeros_init = zeros_init
        self.std = std
        self.share_query_key = share_query_key
        self.num_heads = num_heads
        self.gate = gate
        self.output_layer = output_layer
        self.positional_encoding = positional_encoding
        self.with_cp = with_cp
        self.scale = 1.0
        if mode == 'embedded_gaussian' and use_scale:
            self.scale = (self.key_channels // num_heads) ** -0.5
        name = type(self).__name__
        self.layout = _layout(name, in_channels, self.ndim, num_heads, order)
        self.has_query_and_key = _has_query_and_key
        build_layers(self, conv_cfg, norm_cfg, projection_cfg)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialize the parameters.

        The projections are sampled from a normal distribution with the
        standard deviation ``std``. With ``zeros_init`` the output layer (its
        norm if it has one), or the value without an output layer, is zero, so
        the block is an identity. A gate is always initialized to 0; no layer
        but the gate is zero then, since two zeros would not learn.
        """
        initialize_layers(self)

    def forward(self, x: Tensor) -> Tensor:
        """Add to every position what it attends to.

        Args:
            x (Tensor): Shape ``(B, C, *size)``, ``(B, *size, C)`` with a
                layout of that order, or ``(B * T, C, H, W)`` with
                ``num_frames``.

        Returns:
            Tensor: Shape of ``x``.

        Raises:
            ValueError: If ``x`` has the wrong rank, channels or frames, or is
                too small to be pooled.
        """
        features = self.layout.unfold(x)
        if self.with_cp and torch.is_grad_enabled():
            # Without the norm of conv_out, which would count its input twice.
            y = checkpoint(
                lambda x: self.attend(self.project(x)),
                features,
                use_reentrant=False,
                preserve_rng_state=False,
            )
        else:
            y = self.attend(self.project(features))
        y = self.layout.merge(y, features.shape)
        if self.output_layer:
            y = self.conv_out(y)
        return self.layout.fold(features + y)

    def project(self, features: Tensor) -> Projections:
        """Query, key and value of an input, split into heads.

        Args:
            features (Tensor): Shape ``(B, C, *size)``.

        Returns:
            Projections: The operands of :meth:`attend`. Query and key are the
            same object where they are equal.

        Raises:
            ValueError: If the input is too small to be pooled.
        """
        size = tuple(features.shape[2:])
        if self.sub_sample and any(s < p for s, p in zip(size, self.pool_size)):
            raise ValueError(
                f'{type(self).__name__} pools by {self.pool_size}, which the '
                f'size {size} of the input is too small for'
            )
        source = self.pool(features) if self.sub_sample == 'before' else features
        value = self.layout.split(self.g(source))
        if not self.has_query_and_key:
            return Projections(None, None, value)
        if self.positional_encoding:
            same = source is features
            features = with_sine_encoding(features)
            source = features if same else with_sine_encoding(source)
        query = features if self.mode == 'gaussian' else self.theta(features)
        if self.mode != 'gaussian' and not self.share_query_key:
            key = self.phi(source)
        elif not self.sub_sample:
            key = query
        elif self.sub_sample is True:
            key = self.pool(query)
        else:
            key = source if self.mode == 'gaussian' else self.theta(source)
        tokens = self.layout.split(query)
        return Projections(
            tokens, tokens if key is query else self.layout.split(key), value
        )

    def attend(self, projections: Projections) -> Tensor:
        """The attended values, scaled by the gate if there is one.

        Args:
            projections (Projections): Query, key, value and key bias.

        Returns:
            Tensor: Shape ``(G, h, N, Dv)``.
        """
        query, key, value, key_bias = projections
        assert query is not None and key is not None
        if self.mode == 'dot_product':
            y = dot_product_attention(query, key, value)
        elif self.mode == 'concatenation':
            y = concatenation_attention(*self.scores(query, key), value)
        else:
            y = softmax_attention(query, key, value, self.logit_scale, key_bias)
        return self.gamma.to(y.dtype) * y if self.gate else y

    @property
    def logit_scale(self) -> float:
        """Factor of the pairwise logits of a softmax."""
        return self.scale

    def scores(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the concatenation, ``(..., h, N)`` and ``(..., h, Nk)``.

        They are the products of the query and the key with their halves of
        ``w_f`` (eq. 5).
        """
        weight = self.concat_project.conv.weight.reshape(2, self.num_heads, -1, 1)
        return (query @ weight[0])[..., 0], (key @ weight[1])[..., 0]

    def key_size(self, features: Tensor) -> tuple[int, ...]:
        """Sizes of the key for an input ``(B, C, *size)``."""
        size = tuple(features.shape[2:])
        if not self.sub_sample:
            return size
        return tuple(s // p for s, p in zip(size, self.pool_size))

    def attention_weights(self, x: Tensor, positions: Tensor) -> AttentionWeights:
        """See :func:`.attention_maps.attention_weights`."""
        return attention_weights(self, x, positions)
