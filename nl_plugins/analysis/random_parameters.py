"""Random parameters that models with the same layers have in common."""

import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from torch import nn


def sample_parameters(model: nn.Module) -> None:
    """Sample the parameters of a model, which depend on their names alone.

    Non-local blocks keep the parameters of new ones, which are identities.
    So a model computes the same with and without blocks, and what depends on
    values (how many proposals of a detector overlap) does not differ.

    Args:
        model (nn.Module): The model, changed in place.
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
        if isinstance(module, _NonLocalNd):
            module.init_weights()
