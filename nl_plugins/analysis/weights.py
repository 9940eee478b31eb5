"""Random weights that models with the same layers have in common."""

import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from torch import nn


def draw_weights(model: nn.Module, identities: bool = True) -> None:
    """Draw the weights of a model, which depend on their names alone.

    A model and the same one with blocks compute the same then, so that what
    follows from the values (how many proposals of a detector overlap) is no
    difference between them.

    Args:
        model (nn.Module): The model.
        identities (bool): Whether non-local blocks keep the weights of new
            ones, which are identities. Defaults to True.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            generator = torch.Generator().manual_seed(sum(name.encode()))
            deviation = parameter[0].numel() ** -0.5
            parameter.data.copy_(
                deviation * torch.randn(parameter.shape, generator=generator)
            )
        else:
            nn.init.constant_(parameter, float(not name.endswith('bias')))
    for module in model.modules():
        if identities and isinstance(module, _NonLocalNd):
            module.init_weights()
