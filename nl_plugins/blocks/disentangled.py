"""Disentangled non-local blocks: a whitened pairwise and a unary term.

Letters as in :mod:`nl_plugins.blocks.non_local`.
"""
from collections.abc import Sequence

import torch
from mmengine.model import constant_init, normal_init
from torch import Tensor, nn

from ..registry import MODELS
from .non_local import (
    AttentionWeights,
    NonLocal1d,
    NonLocal2d,
    NonLocal3d,
    NonLocalBlock,
)

TERMS = ('pairwise', 'unary')


class DisentangledBlock(NonLocalBlock):
    """What the disentangled blocks of all dimensions share.

    See :class:`DisentangledNonLocal2d`.
    """

    def __init__(self,
                 in_channels: int,
                 *args,
                 temperature: float = 0.05,
                 terms: Sequence[str] = TERMS,
                 whiten: str | None = 'channel',
                 **kwargs) -> None:
        if not temperature > 0:
            raise ValueError(
                f'temperature must be greater than 0, but got {temperature!r}')
        if (isinstance(terms, str) or not terms
                or not set(terms) <= set(TERMS)):
            raise ValueError(f'terms must be one or both of {TERMS}, but got '
                             f'{terms!r}')
        if whiten not in (None, 'channel'):
            raise ValueError(
                f"whiten must be None or 'channel', but got {whiten!r}")
        super().__init__(in_channels, *args, **kwargs)
        if self.gate and 'pairwise' not in terms:
            raise ValueError('gate scales the pairwise term, so it must be '
                             f'None with terms={tuple(terms)}, but got '
                             f'{self.gate!r}')
        self.temperature = temperature
        self.terms = tuple(terms)
        self.whiten = whiten
        if 'unary' in terms:
            self.conv_mask = getattr(nn, f'Conv{self.ndim}d')(in_channels, 1,
                                                              1)
        if 'pairwise' not in terms:
            for name in ('theta', 'phi', 'concat_project'):
                self._modules.pop(name, None)
        self.init_weights()

    def init_weights(self) -> None:
        """Set the weights of a new block.

        As in :meth:`NonLocalBlock.init_weights`; the unary projection is
        normal like the others. The gate does not scale the unary term, so
        with both the value starts at zero: the block is an identity, and the
        unary term trains the value from the first step.
        """
        super().init_weights()
        if hasattr(self, 'conv_mask'):
            normal_init(self.conv_mask, std=self.std)
            if self.gate:
                value = self.g[0] if self.sub_sample else self.g
                constant_init(value.conv, 0)

    @torch.no_grad()
    def attention_weights(self, x: Tensor,
                          positions: Tensor) -> AttentionWeights:
        """As :meth:`NonLocalBlock.attention_weights`, with the unary map."""
        pairwise = unary = None
        if 'pairwise' in self.terms:
            pairwise = super().attention_weights(x, positions).pairwise
        if 'unary' in self.terms:
            unary = self._unary_weights(x).unflatten(
                1, self._key_size(x.shape[2:]))
        return AttentionWeights(pairwise, unary)

    def _aggregate(self, x: Tensor) -> Tensor:
        if self.terms == ('pairwise', ):
            return super()._aggregate(x)
        value = self._value(x)
        unary = self._unary_weights(x).unsqueeze(1) @ value
        if 'pairwise' in self.terms:
            return self._attend(x, value) + unary
        return unary.expand(-1, x.shape[2:].numel(), -1)

    def _query_and_key(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key = super()._query_and_key(x)
        if self.whiten == 'channel':
            query = query - query.mean(dim=1, keepdim=True)
            key = key - key.mean(dim=1, keepdim=True)
        return query, key

    def _logit_scale(self) -> float:
        if self.mode in ('gaussian', 'embedded_gaussian'):
            return super()._logit_scale() / self.temperature
        return super()._logit_scale()

    def _unary_weights(self, x: Tensor) -> Tensor:
        """Softmax of the unary logits, ``(B, C, *size)`` to ``(B, Nk)``."""
        logits = self.conv_mask(x)
        if self.sub_sample:
            logits = self.pool(logits)
        return logits.flatten(1).softmax(dim=1)


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
    The temperature divides the logits of both softmax functions; the dot
    product and the concatenation have no softmax and ignore it.

    ``DisentangledNonLocal2d(c, key_channels=c // 4, gate='scalar')`` is the
    block of the paper's detection code, where the gate scales the pairwise
    term alone.

    Args:
        in_channels (int): Channels ``C`` of the input.
        temperature (float): :math:`\tau`, greater than 0. Defaults to 0.05.
        terms (Sequence[str]): ``'pairwise'``, ``'unary'`` or both. Defaults
            to both.
        whiten (str, optional): ``'channel'`` subtracts from query and key
            their means over the positions, None does not. Defaults to
            ``'channel'``.
        args, kwargs: As in :class:`NonLocal2d`.

    Raises:
        ValueError: If an argument has a value that is not allowed.
    """


@MODELS.register_module()
class DisentangledNonLocal3d(DisentangledBlock, NonLocal3d):
    """Disentangled block on clips; see :class:`DisentangledNonLocal2d`."""
