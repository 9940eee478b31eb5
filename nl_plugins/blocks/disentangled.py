"""Disentangled non-local blocks: a whitened pairwise and a unary term.

Letters as in :mod:`nl_plugins.blocks.base`.
"""
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import constant_init, normal_init
from torch import Tensor, nn

from ..registry import MODELS
from .base import SOFTMAX_MODES, NonLocalBlock
from .non_local import NonLocal1d, NonLocal2d, NonLocal3d
from .pointwise import pointwise

TERMS = ('pairwise', 'unary')


class DisentangledBlock(NonLocalBlock):
    """What the disentangled blocks of all dimensions share.

    See :class:`DisentangledNonLocal2d`.
    """

    def __init__(self,
                 in_channels: int,
                 *args: Any,
                 temperature: float = 0.05,
                 terms: Sequence[str] = TERMS,
                 coupling: str = 'add',
                 unary: str = 'separate',
                 whiten: str | None = 'channel',
                 **kwargs: Any) -> None:
        if not temperature > 0:
            raise ValueError(
                f'temperature must be greater than 0, but got {temperature!r}')
        if (isinstance(terms, str) or not terms
                or not set(terms) <= set(TERMS)):
            raise ValueError(f'terms must be one or both of {TERMS}, but got '
                             f'{terms!r}')
        if coupling not in ('add', 'mul'):
            raise ValueError(
                f"coupling must be 'add' or 'mul', but got {coupling!r}")
        if unary not in ('separate', 'shared'):
            raise ValueError(
                f"unary must be 'separate' or 'shared', but got {unary!r}")
        if whiten not in (None, 'channel', 'layer'):
            raise ValueError("whiten must be None, 'channel' or 'layer', but "
                             f'got {whiten!r}')
        self.terms = tuple(terms)
        self.pairwise = 'pairwise' in terms
        self.unary = unary if 'unary' in terms else None
        self.temperature = temperature
        self.coupling = coupling
        self.whiten = whiten
        super().__init__(in_channels, *args, **kwargs)
        if self.gate and not self.pairwise:
            raise ValueError('gate scales the pairwise term, so it must be '
                             f'None with terms={self.terms}, but got '
                             f'{self.gate!r}')
        if coupling == 'mul' and not (self.pairwise and self.unary
                                      and self.mode in SOFTMAX_MODES):
            raise ValueError(
                "coupling='mul' is one softmax of both terms, so it needs "
                f'both and a mode out of {SOFTMAX_MODES}, but got '
                f'terms={self.terms} and mode={self.mode!r}')
        if unary == 'shared' and not (self.unary
                                      and self.mode != 'concatenation'):
            raise ValueError(
                "unary='shared' is the mean query times the key, so it needs "
                "the unary term and a mode other than 'concatenation', but "
                f'got terms={self.terms} and mode={self.mode!r}')

    def _build_layers(self, conv_cfg: dict, norm_cfg: dict | None) -> None:
        super()._build_layers(conv_cfg, norm_cfg)
        if self.unary == 'separate':
            self.conv_mask = getattr(nn, f'Conv{self.ndim}d')(
                self.in_channels, 1, 1)
        if not self.pairwise and self.unary != 'shared':
            for name in ('theta', 'phi', 'concat_project'):
                self._modules.pop(name, None)

    def init_weights(self) -> None:
        """Set the weights of a new block.

        As in :meth:`NonLocalBlock.init_weights`; the unary projection is
        normal like the others. The gate does not scale an added unary term,
        so with both the value starts at zero: the block is an identity, and
        the unary term trains the value from the first step.
        """
        super().init_weights()
        if self.unary == 'separate':
            normal_init(self.conv_mask, std=self.std)
        if self.gate and self.unary and self.coupling == 'add':
            value = self.g[0] if self.sub_sample is True else self.g
            constant_init(value.conv, 0)

    def _aggregate(self, x: Tensor) -> Tensor:
        if not self.unary or self.coupling == 'mul':
            return super()._aggregate(x)
        source = self._key_source(x)
        query = key = None
        if self.pairwise or self.unary == 'shared':
            query, key = self._query_and_key(x, source)
        # Both terms need it in this layout: one copy instead of two.
        value = self._value(source).contiguous()
        weights = self._unary_logits(source, query, key).softmax(dim=1)
        y = weights.unsqueeze(1) @ value
        if self.pairwise:
            query, key = self._split_and_whiten(query, key)
            y = self._attend(query, key, None, value) + y
        return y

    def _query_key_and_bias(
            self, x: Tensor,
            source: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        query, key = self._query_and_key(x, source)
        bias = None
        if self.coupling == 'mul':
            bias = self._unary_logits(source, query, key)
        return *self._split_and_whiten(query, key), bias

    def _split_and_whiten(self, query: Tensor,
                          key: Tensor) -> tuple[Tensor, Tensor]:
        if self.whiten:
            dims = 1 if self.whiten == 'channel' else (1, 2)
            query = query - query.mean(dim=dims, keepdim=True)
            key = key - key.mean(dim=dims, keepdim=True)
        return self._split_heads(query), self._split_heads(key)

    def _logit_scale(self) -> float:
        if self.mode in SOFTMAX_MODES:
            return super()._logit_scale() / self.temperature
        return super()._logit_scale()

    def _unary_logits(self, source: Tensor, query: Tensor | None,
                      key: Tensor | None) -> Tensor:
        """What the keys alone decide, ``(B, Nk)``."""
        if self.unary == 'shared':
            mean = self._split_heads(query.mean(dim=1, keepdim=True))
            logits = mean @ self._split_heads(key).transpose(1, 2)
            return super()._logit_scale() * logits.squeeze(1)
        logits = pointwise(self.conv_mask, source)
        if self.sub_sample is True:
            logits = self.pool(logits)
        logits = self._group(logits)[..., 0]
        if self.num_heads == 1:
            return logits
        return logits.unsqueeze(1).expand(-1, self.num_heads, -1).flatten(0, 1)

    def _pairwise_weights(self, x: Tensor, places: Tensor) -> Tensor | None:
        return super()._pairwise_weights(x, places) if self.pairwise else None

    def _unary_weights(self, x: Tensor) -> Tensor | None:
        if not self.unary or self.coupling == 'mul':
            return None
        source = self._key_source(x)
        query = key = None
        if self.unary == 'shared':
            query, key = self._query_and_key(x, source)
        weights = self._unary_logits(source, query, key).softmax(dim=1)
        weights = self._unflatten_heads(weights).mean(dim=1)
        grid = self._index_grid(self._key_size(x), x.device)
        out = torch.empty_like(weights).reshape(len(x), -1)
        out[:, grid.flatten()] = weights.reshape(len(x), -1)
        return out.unflatten(1, self._key_size(x))


@MODELS.register_module()
class DisentangledNonLocal1d(DisentangledBlock, NonLocal1d):
    """Disentangled block on sequences; see :class:`DisentangledNonLocal2d`."""


@MODELS.register_module()
class DisentangledNonLocal2d(DisentangledBlock, NonLocal2d):
    r"""Disentangled non-local block on images, ``(B, C, H, W)``.

    .. math::
        z_i = W_z \sum_j \left( \mathrm{softmax}_j \frac{(q_i - \mu_q)^T
        (k_j - \mu_k)}{\sqrt{D}\, \tau} + \mathrm{softmax}_j\, m_j \right)
        g(x_j) + x_i, \qquad m_j = W_m x_j

    Source: `Disentangled Non-Local Neural Networks
    <https://arxiv.org/abs/2006.06668>`_. The defaults have the keys and the
    results of MMSegmentation's block of this name, whose checkpoints load.
    The temperature divides the pairwise logits of both softmax functions;
    the dot product and the concatenation have no softmax and ignore it.

    ``DisentangledNonLocal2d(c, key_channels=c // 4, gate='scalar')`` is the
    block of the paper's detection code, where the gate scales the pairwise
    term alone.

    Args:
        in_channels (int): Channels ``C`` of the input.
        temperature (float): :math:`\tau`, greater than 0. Defaults to 0.05.
        terms (Sequence[str]): ``'pairwise'``, ``'unary'`` or both. Defaults
            to both.
        coupling (str): ``'add'`` adds two softmax functions as above,
            ``'mul'`` takes one softmax of the sum of both logits, which
            multiplies the weights as the plain block does. Defaults to
            ``'add'``.
        unary (str): The unary logits. ``'separate'`` has its own projection
            :math:`W_m`, ``'shared'`` is what the plain block has in it, the
            scaled :math:`\mu_q^T k_j`. With ``coupling='mul'``,
            ``unary='shared'`` and ``temperature=1`` the block equals
            :class:`NonLocal2d`. Defaults to ``'separate'``.
        whiten (str, optional): ``'channel'`` subtracts from query and key
            their means over the positions, ``'layer'`` their means over
            positions and channels, one number each, None nothing. Defaults
            to ``'channel'``.
        args, kwargs: As in :class:`NonLocal2d`.

    Raises:
        ValueError: If an argument has a value that is not allowed.
    """


@MODELS.register_module()
class DisentangledNonLocal3d(DisentangledBlock, NonLocal3d):
    """Disentangled block on clips; see :class:`DisentangledNonLocal2d`."""
