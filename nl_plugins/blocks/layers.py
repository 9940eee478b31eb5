"""The layers of a block, under mmcv's names, and their initial values."""

from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import constant_init, normal_init
from torch import nn

from .pointwise import Pointwise

#: A NonLocalBlock, whose module imports this one.
Block = Any


def build_layers(
    block: Block, conv_cfg: dict | None, norm_cfg: dict | None, cfg: dict[str, dict]
) -> None:
    """Build the layers of a block. Their names are keys in checkpoints.

    Args:
        block (NonLocalBlock): The block, with all its options.
        conv_cfg (dict, optional): As in :class:`NonLocal2d`.
        norm_cfg (dict, optional): As in :class:`NonLocal2d`.
        cfg (dict[str, dict]): Arguments of the layers, by projection.
    """
    inputs, keys, values = block.in_channels, block.key_channels, block.value_channels
    conv_cfg = conv_cfg or dict(type=f'Conv{block.ndim}d')
    block.g = Pointwise(inputs, values, conv_cfg=conv_cfg, **cfg['value'])
    if block.gate:
        block.gamma = nn.Parameter(torch.zeros(1))
    if block.output_layer:
        block.conv_out = Pointwise(
            values,
            inputs,
            channels_last=False,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            **cfg['output'],
        )
    if block.has_query_and_key and block.mode != 'gaussian':
        block.theta = Pointwise(inputs, keys, conv_cfg=conv_cfg, **cfg['query'])
        if not block.share_query_key:
            block.phi = Pointwise(inputs, keys, conv_cfg=conv_cfg, **cfg['key'])
    if block.has_query_and_key and block.mode == 'concatenation':
        # mmcv's layer, for its name: forward() uses only its parameter.
        block.concat_project = ConvModule(
            2 * keys, 1, 1, bias=False, act_cfg=dict(type='ReLU')
        )
    if block.sub_sample:
        size = block.pool_size if block.ndim > 1 else block.pool_size[0]
        block.pool = getattr(nn, f'MaxPool{block.ndim}d')(size)
    if block.sub_sample is True:
        block.g = nn.Sequential(block.g, block.pool)
        if block.mode == 'gaussian':
            block.phi = block.pool
        elif block.has_query_and_key and not block.share_query_key:
            block.phi = nn.Sequential(block.phi, block.pool)


def initialize_layers(block: Block) -> None:
    """See :meth:`.base.NonLocalBlock.init_weights`."""
    for name in ('g', 'theta', 'phi'):
        layer = getattr(block, name, None)
        if isinstance(layer, nn.Sequential):
            layer = layer[0]
        if isinstance(layer, ConvModule):
            _sample(layer, block.std)
    if hasattr(block, 'concat_project'):
        block.concat_project.init_weights()
    if block.gate:
        nn.init.zeros_(block.gamma)
        if block.output_layer:
            _sample(block.conv_out, block.std)
    elif block.zeros_init:
        zero_last_layer(block)
    elif block.output_layer and block.conv_out.with_norm:
        normal_init(block.conv_out.norm, std=block.std)
    elif block.output_layer:
        _sample(block.conv_out, block.std)


def zero_last_layer(block: Block) -> None:
    """Make the output layer zero, or the value where there is none.

    Raises:
        ValueError: If spectral norm would divide a weight of zero by its norm.
    """
    layer = block.g[0] if block.sub_sample is True else block.g
    if block.output_layer:
        layer = block.conv_out
    if layer.with_spectral_norm:
        raise ValueError(
            'spectral norm divides by the norm of the weight, so it does not '
            'work for the layer that starts at zero: use the gate, or '
            'zeros_init=False'
        )
    constant_init(layer.norm if layer.with_norm else layer.conv, 0)


def _sample(layer: ConvModule, std: float) -> None:
    """Sample the weight; the bias is 0, and a norm has its own initial values."""
    normal_init(layer.conv, std=std)
    if layer.with_norm:
        constant_init(layer.norm, 1)
