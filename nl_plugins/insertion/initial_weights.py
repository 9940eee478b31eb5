"""Initial weights of a base with blocks."""

from collections import defaultdict
from typing import Any

from mmengine.runner.checkpoint import load_state_dict
from torch import nn


def init_weights(base: nn.Module, names: list[str], *args: Any, **kwargs: Any) -> None:
    """``init_weights`` of a base, after which its blocks are new ones.

    The blocks are out of their hosts meanwhile, since some bases look for
    each of their layers in the pretrained file. A state dict that reaches a
    host still fills them if it holds them.
    """
    if getattr(base, 'is_init', False):
        # mmengine says that this is the second time, and changes nothing.
        type(base).init_weights(base, *args, **kwargs)
        return
    blocks = [base.get_submodule(name) for name in names]
    hosts = defaultdict(dict)
    for name, block in zip(names, blocks):
        host, _, child = name.rpartition('.')
        hosts[base.get_submodule(host)][child] = block
    loaded = set()

    def fill(host: nn.Module, state_dict: dict, prefix: str, *unused: Any) -> None:
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
        handles.append(host._register_load_state_dict_pre_hook(fill, with_module=True))
        for child in children:
            del host._modules[child]
    try:
        type(base).init_weights(base, *args, **kwargs)
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
