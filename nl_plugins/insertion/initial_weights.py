"""Initialization of a base with inserted blocks."""

from collections import defaultdict
from typing import Any

from mmengine.runner.checkpoint import load_state_dict
from torch import nn


def init_weights(base: nn.Module, names: list[str], *args: Any, **kwargs: Any) -> None:
    """Call ``init_weights`` of a base and initialize its inserted blocks.

    During the call the blocks are detached from their hosts, because some
    bases look for each of their layers in the pretrained file. Blocks that a
    loaded state dict holds get its parameters; all others are initialized
    after the call.

    Args:
        base (nn.Module): The base, which has a method ``init_weights``.
        names (list[str]): Full names of its inserted blocks.
        args, kwargs: Arguments of the method.
    """
    base_type: Any = type(base)
    if getattr(base, 'is_init', False):
        # mmengine warns about the second call and changes nothing.
        base_type.init_weights(base, *args, **kwargs)
        return
    blocks = [base.get_submodule(name) for name in names]
    hosts: dict[nn.Module, dict[str, nn.Module]] = defaultdict(dict)
    for name, block in zip(names, blocks):
        parent, _, child = name.rpartition('.')
        hosts[base.get_submodule(parent)][child] = block
    loaded = set()

    def load_blocks(
        host: nn.Module, state_dict: dict, prefix: str, *unused: Any
    ) -> None:
        for child, block in hosts[host].items():
            start = f'{prefix}{child}.'
            held = {
                key.removeprefix(start): state_dict.pop(key)
                for key in list(state_dict)
                if key.startswith(start)
            }
            if held:
                load_state_dict(block, held)
                loaded.add(block)

    handles = []
    for host, children in hosts.items():
        handles.append(
            host._register_load_state_dict_pre_hook(load_blocks, with_module=True)
        )
        for child in children:
            del host._modules[child]
    try:
        base_type.init_weights(base, *args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for host, children in hosts.items():
            host._modules.update(children)
    for block in blocks:
        if block in loaded:
            continue
        for method in ('init_weights', 'reset_parameters'):
            if hasattr(block, method):
                getattr(block, method)()
                break
