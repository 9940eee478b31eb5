"""Disentangled non-local blocks: a whitened pairwise and a unary term.

Letters as in :mod:`nl_plugins.blocks.base`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import normal_init
from torch import Tensor, nn

from ..registry import MODELS
from .base import NonLocalBlock
from .checks import MODES, SOFTMAX_MODES, check_number
from .layers import zero_last_layer
from .layout import Projections
from .non_local import NonLocal1d, NonLocal2d, NonLocal3d, named_arguments
from .pointwise import pointwise
from .whitening import KINDS, whiten

TERMS = ('pairwise', 'unary')


class DisentangledBlock(NonLocalBlock):
    """Base class of the disentangled blocks.

    For the arguments see :class:`DisentangledNonLocal2d`.
    """

    def __init__(
        self,
        in_channels: int,
        *args: Any,
        temperature: float = 0.05,
        terms: Sequence[str] = TERMS,
        coupling: str = 'add',
        unary: str = 'separate',
        whiten: str | None = 'channel',
        learn_temperature: bool = False,
        **kwargs: Any,
    ) -> None:
        check_number('temperature', temperature, allow_zero=False)
        if isinstance(terms, str) or not terms or not set(terms) <= set(TERMS):
            raise ValueError(f'terms must be one or both of {TERMS}, but got {terms!r}')
        if coupling not in ('add', 'mul'):
            raise ValueError(f"coupling must be 'add' or 'mul', but got {coupling!r}")
        if unary not in ('separate', 'shared'):
            raise ValueError(f"unary must be 'separate' or 'shared', but got {unary!r}")
        if whiten not in (None, *KINDS):
            raise ValueError(
                f'whiten must be None or one of {KINDS}, but got {whiten!r}'
            )
        pairwise, unary_term = 'pairwise' in terms, 'unary' in terms
        options = named_arguments(args, kwargs)
        mode = options.get('mode', MODES[1])
        if options.get('gate') and not pairwise:
            raise ValueError(
                'gate scales the pairwise term, so it must be '
                f'None with terms={tuple(terms)}, but got '
                f'{options["gate"]!r}; output_layer=False alone leaves out '
                'the output layer'
            )
        if coupling == 'mul' and not (
            pairwise and unary_term and mode in SOFTMAX_MODES
        ):
            raise ValueError(
                "coupling='mul' is one softmax of both terms, so it needs "
                f'both and a mode out of {SOFTMAX_MODES}, but got '
                f'terms={tuple(terms)} and mode={mode!r}'
            )
        if unary == 'shared' and not (unary_term and mode != 'concatenation'):
            raise ValueError(
                "unary='shared' is the mean query times the key, so it needs "
                "the unary term and a mode other than 'concatenation', but "
                f'got terms={tuple(terms)} and mode={mode!r}'
            )
        if learn_temperature and not (pairwise and mode in SOFTMAX_MODES):
            raise ValueError(
                'learn_temperature is that of the pairwise softmax, so it needs '
                f'the pairwise term and a mode out of {SOFTMAX_MODES}, but got '
                f'terms={tuple(terms)} and mode={mode!r}'
            )
        super().__init__(
            in_channels,
            *args,
            _has_query_and_key=pairwise or unary == 'shared',
            **kwargs,
        )
        self.terms = tuple(terms)
        self.temperature = temperature
        self.learn_temperature = learn_temperature
        if learn_temperature:
            self.log_temperature = nn.Parameter(torch.empty(1))
        self.coupling = coupling
        self.unary = unary if unary_term else None
        self.whiten = whiten
        self.has_pairwise_term = pairwise
        self.has_unary_term = unary_term and coupling == 'add'
        if self.unary == 'separate':
            self.conv_mask = getattr(nn, f'Conv{self.ndim}d')(self.in_channels, 1, 1)
        self._init_terms()

    def init_weights(self) -> None:
        """Initialize the parameters as :meth:`NonLocalBlock.init_weights`.

        The unary projection is sampled like the others. A gate does not scale
        the unary term, so with ``zeros_init`` and a gate the output layer, or
        the value without one, starts at zero too: the block is an identity,
        and the unary term trains that layer from the first step.
        """
        super().init_weights()
        self._init_terms()

    def _init_terms(self) -> None:
        if hasattr(self, 'log_temperature'):
            nn.init.constant_(self.log_temperature, math.log(self.temperature))
        if hasattr(self, 'conv_mask'):
            normal_init(self.conv_mask, std=self.std)
        if self.gate and self.has_unary_term and self.zeros_init:
            zero_last_layer(self)

    def project(self, features: Tensor) -> Projections:
        """Query, key and value, the first two whitened, and the unary logits."""
        query, key, value, key_bias = super().project(features)
        if self.unary == 'separate':
            key_bias = self._separate_logits(features)
        if query is None or key is None:
            return Projections(None, None, value, key_bias)
        if self.unary == 'shared':
            logits = query.mean(dim=2, keepdim=True) @ key.transpose(2, 3)
            key_bias = self.scale * logits[:, :, 0]
        if self.has_pairwise_term and self.whiten:
            same = key is query
            query = whiten(query, self.whiten)
            key = query if same else whiten(key, self.whiten)
        if self.learn_temperature:
            # Relative to the initial one, which is in `logit_scale`.
            change = math.log(self.temperature) - self.log_temperature
            query = change.exp().to(query.dtype) * query
        if self.has_unary_term:
            # Both terms need a contiguous value: one copy instead of two.
            value = value.contiguous()
        return Projections(query, key, value, key_bias)

    def attend(self, projections: Projections) -> Tensor:
        """The values attended by the pairwise term, plus the unary term."""
        key_bias = projections.key_bias
        if key_bias is None or self.coupling == 'mul':
            return super().attend(projections)
        y = key_bias.softmax(dim=-1).unsqueeze(2) @ projections.value
        if self.has_pairwise_term:
            y = super().attend(projections._replace(key_bias=None)) + y
        return y

    @property
    def logit_scale(self) -> float:
        """Factor of the pairwise logits, divided by the (initial) temperature."""
        return self.scale / self.temperature

    def _separate_logits(self, features: Tensor) -> Tensor:
        """Unary logits of the separate projection, ``(G, h, Nk)``."""
        if self.sub_sample == 'before':
            features = self.pool(features)
        logits = pointwise(self.conv_mask, features, channels_last=False)
        if self.sub_sample is True:
            logits = self.pool(logits)
        return self.layout.split(logits, 1)[..., 0].expand(-1, self.num_heads, -1)


@MODELS.register_module()
class DisentangledNonLocal1d(DisentangledBlock, NonLocal1d):
    """Disentangled block for sequences; see :class:`DisentangledNonLocal2d`."""


@MODELS.register_module()
class DisentangledNonLocal2d(DisentangledBlock, NonLocal2d):
    r"""Disentangled non-local block for images, ``(B, C, H, W)``.

    .. math::
        z_i = W_z \sum_j \left( \mathrm{softmax}_j \frac{(q_i - \mu_q)^T
        (k_j - \mu_k)}{\sqrt{D}\, \tau} + \mathrm{softmax}_j\, m_j \right)
        g(x_j) + x_i, \qquad m_j = W_m x_j

    Source: `Disentangled Non-Local Neural Networks
    <https://arxiv.org/abs/2006.06668>`_. With its defaults the block has the
    state dict keys and the results of MMSegmentation's block of this name.
    The temperature applies to the modes with a softmax; the dot product and
    the concatenation ignore it.

    ``DisentangledNonLocal2d(c, key_channels=c // 4, gate='scalar')`` is the
    block of the paper's detection code, where the gate scales the pairwise
    term alone. With ``terms=('unary',)`` and ``output_layer=False`` it is the
    simplified non-local block of `GCNet <https://arxiv.org/abs/1904.11492>`_,
    which moves the value's projection behind the sum in a second step.

    Args:
        in_channels (int): Channels ``C`` of the input.
        temperature (float): :math:`\tau`, greater than 0. Defaults to 0.05.
        terms (Sequence[str]): ``'pairwise'``, ``'unary'`` or both. Defaults
            to both.
        coupling (str): ``'add'`` adds two softmax functions as above,
            ``'mul'`` takes one softmax of the sum of both logits, which
            multiplies the attention weights as :class:`NonLocal2d` does.
            Defaults to ``'add'``.
        unary (str): The unary logits. ``'separate'`` computes them with a
            projection :math:`W_m`, ``'shared'`` takes the unary part of the
            non-local block, the scaled :math:`\mu_q^T k_j`. With
            ``coupling='mul'``, ``unary='shared'`` and ``temperature=1`` the
            block equals :class:`NonLocal2d`. Defaults to ``'separate'``.
        whiten (str, optional): ``'channel'`` subtracts from query and key
            their means over the positions, ``'layer'`` their means over
            heads, positions and channels, None subtracts nothing.
            ``'channel_std'`` and ``'layer_std'`` also divide by the standard
            deviation over the same dimensions, as the variants ``in`` and
            ``ln`` of the `paper's segmentation code
            <https://github.com/yinmh17/DNL-Semantic-Segmentation>`_. Defaults
            to ``'channel'``.
        learn_temperature (bool): Learn the temperature, one for all heads,
            whose initial value is ``temperature``. The parameter is its
            logarithm, so it stays greater than 0. `Swin Transformer V2
            <https://arxiv.org/abs/2111.09883>`_ has one for each head. Defaults
            to False.
        args, kwargs: As in :class:`NonLocal2d`.

    Raises:
        ValueError: If an argument has a value that is not allowed.
    """


@MODELS.register_module()
class DisentangledNonLocal3d(DisentangledBlock, NonLocal3d):
    """Disentangled block for clips; see :class:`DisentangledNonLocal2d`."""
