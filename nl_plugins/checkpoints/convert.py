"""Convert a state dict to another model that computes the same."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from torch import Tensor, nn

from ..errors import CheckpointMismatchError
from ..insertion import side_of
from .load import load_parameters

#: ``eps`` of PyTorch's batch norms.
EPS = 1e-5
#: Attributes that decide what a block computes, with the values that stand
#: for a missing attribute.
_OPTIONS = dict(
    mode=None,
    use_scale=True,
    sub_sample=False,
    axes='spacetime',
    group_size=None,
    num_heads=1,
    temperature=None,
    terms=None,
    coupling=None,
    whiten=None,
)
#: Names of non-local blocks in their hosts.
_CHILD = re.compile(r'(?:non_local|d?nl)_block(?:_\d+)?')
#: What MMAction2's wrappers of a layer add to its keys.
_WRAPPERS = re.compile(r'\.(net|block)(?=\.)')


def convert(
    state_dict: Mapping[str, Tensor],
    target: nn.Module,
    source: nn.Module | None = None,
    name: str = 'the checkpoint',
    config: str = 'the target',
) -> dict[str, Tensor]:
    """Convert a state dict to the keys and shapes of another model.

    Models differ in the keys of a block at the same place: with upstream's
    ``non_local=`` it is a part of the residual block before it, MMAction2's
    TSM wraps both, and :func:`nl_plugins.WithBlocks` can attach it before one
    module or after another. Convolutions over one frame are converted between
    two and three dimensions. The norm of a block's output layer is folded
    into the layer if the target has none; if only the target has one, it
    becomes an identity. The gate of a block is folded into the output layer
    if the target has no gate, and a bias that only the target has is 0. Parts
    of the target of which the state dict has no key, such as the classifier,
    are left out.

    Args:
        state_dict (Mapping[str, Tensor]): The state dict to convert.
        target (nn.Module): The model to convert it for. It loads the result.
        source (nn.Module, optional): The model of the state dict. Defaults to
            None: its blocks run after the modules that hold them, as
            upstream's do, and have the options of the target's blocks.
        name (str): Name of the state dict in messages.
        config (str): Name of the target in messages.

    Returns:
        dict[str, Tensor]: State dict of the target.

    Raises:
        CheckpointMismatchError: If the blocks of the two models have
            different places or options, or parameters are missing, unknown or
            of another shape.
    """
    theirs = _blocks_by_place(
        _find_blocks(source) if source else _blocks_in_keys(state_dict)
    )
    ours = _blocks_by_place(_find_blocks(target))
    if {k: len(v) for k, v in theirs.items()} != {k: len(v) for k, v in ours.items()}:
        raise CheckpointMismatchError(
            f'{name} has non-local blocks {_describe(theirs)}, but {config} '
            f'{_describe(ours)}'
        )
    prefixes = {
        f'{old}.': f'{new}.'
        for place in ours
        for old, new in zip(theirs[place], ours[place])
    }
    if source:
        for old, new in prefixes.items():
            _check_options(
                source.get_submodule(old[:-1]), target.get_submodule(new[:-1])
            )
    expected = target.state_dict()
    plain = {_plain(key): key for key in expected}
    converted = {}
    for key, value in state_dict.items():
        prefix = next((p for p in prefixes if key.startswith(p)), None)
        if prefix:
            key = prefixes[prefix] + key.removeprefix(prefix)
        else:
            key = plain.get(_plain(key), key)
        converted[key] = value
    for prefix in prefixes.values():
        layer = f'{prefix}conv_out.'
        _fold_gate(converted, prefix, expected)
        for key in expected:
            weight = re.sub('bias$', 'weight', key)
            if key.startswith(prefix) and key not in converted and weight in converted:
                converted[key] = torch.zeros_like(expected[key])
        if f'{layer}bn.weight' in expected:
            _fold_bias(converted, layer)
        elif f'{layer}bn.weight' in converted:
            _fold_norm(converted, layer)
    for key, value in converted.items():
        if key in expected and _same_layer(value.shape, expected[key].shape):
            converted[key] = value.reshape(expected[key].shape)
    if not expected.keys() & converted.keys():
        raise CheckpointMismatchError(
            f'{name} has nothing of {config}: its keys are such as '
            f'{", ".join(list(converted)[:3]) or "none"}, those of the model '
            f'{", ".join(list(expected)[:3])}'
        )
    parts = {key.split('.')[0] for key in converted}
    others = {
        key: value for key, value in expected.items() if key.split('.')[0] not in parts
    }
    load_parameters(target, converted | others, name, config)
    return {
        key: value for key, value in target.state_dict().items() if key not in others
    }


def _plain(key: str) -> str:
    """A key without wrappers, and without the ReLU that another block is before."""
    return re.sub(r'\.relu(?=\.)', '', _WRAPPERS.sub('', key))


def _find_blocks(model: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Host, name in it, and side of each non-local block of a model."""
    for name, module in model.named_modules():
        host, _, child = name.rpartition('.')
        if isinstance(module, _NonLocalNd) and _CHILD.fullmatch(child):
            yield host, child, side_of(model.get_submodule(host), child)


def _blocks_in_keys(state_dict: Mapping[str, Tensor]) -> Iterator[tuple[str, str, str]]:
    """The same of a state dict, whose blocks have upstream's side.

    A block in a ReLU is the place before it in a residual block.
    """
    matches = (re.match(rf'(?:(.*)\.)?({_CHILD.pattern})\.', k) for k in state_dict)
    found = ((m[1] or '', m[2]) for m in matches if m)
    for host, child in dict.fromkeys(found):
        yield host, child, 'before' if host.endswith('.relu') else 'after'


def _blocks_by_place(blocks: Iterator[tuple[str, str, str]]) -> dict[str, list[str]]:
    """Full names of blocks by place; before layer n is after layer n - 1."""
    places = defaultdict(list)
    for host, child, side in blocks:
        module = _WRAPPERS.sub('', f'{host}.')[:-1]
        parent, _, index = module.rpartition('.')
        place = f'{side} {module}'
        if side == 'before' and index.isdigit() and int(index):
            place = f'after {parent}.{int(index) - 1}'
        places[place].append(f'{host}.{child}'.lstrip('.'))
    return dict(places)


def _describe(places: dict[str, list[str]]) -> str:
    """List places for a message, with the number of their blocks."""
    return (
        ', '.join(
            f'{len(names)} {place}' if len(names) > 1 else place
            for place, names in places.items()
        )
        or 'none'
    )


def _fold_gate(
    state_dict: dict[str, Tensor], prefix: str, expected: Mapping[str, Tensor]
) -> None:
    """Fold the gate of a block into its output layer if the target has none.

    A gate scales the pairwise term alone, so not beside a unary term.
    """
    gate, mask = f'{prefix}gamma', f'{prefix}conv_mask.weight'
    weight = f'{prefix}conv_out.conv.weight'
    if gate in expected or mask in state_dict:
        return
    if {gate, weight} <= state_dict.keys():
        state_dict[weight] = state_dict[weight] * state_dict.pop(gate)


def _fold_norm(state_dict: dict[str, Tensor], layer: str) -> None:
    """Fold a batch norm with its running statistics into its convolution."""
    weight, bias, mean, variance = (
        state_dict.pop(f'{layer}bn.{name}')
        for name in ('weight', 'bias', 'running_mean', 'running_var')
    )
    state_dict.pop(f'{layer}bn.num_batches_tracked', None)
    scale = weight / (variance + EPS).sqrt()
    conv = state_dict[f'{layer}conv.weight']
    state_dict[f'{layer}conv.weight'] = conv * scale.reshape(
        -1, *[1] * (conv.dim() - 1)
    )
    state_dict[f'{layer}conv.bias'] = bias + scale * (
        state_dict.get(f'{layer}conv.bias', 0) - mean
    )


def _fold_bias(state_dict: dict[str, Tensor], layer: str) -> None:
    """Fold the bias of a convolution into the mean of its batch norm.

    A missing norm is added as an identity of evaluation.
    """
    bias = state_dict.pop(f'{layer}conv.bias', None)
    weight = state_dict.get(f'{layer}conv.weight')
    if weight is not None and f'{layer}bn.weight' not in state_dict:
        ones = weight.new_ones(len(weight))
        state_dict |= {
            f'{layer}bn.weight': ones,
            f'{layer}bn.bias': ones * 0,
            f'{layer}bn.running_mean': ones * 0,
            f'{layer}bn.running_var': ones * (1 - EPS),
        }
    if bias is not None:
        mean = state_dict[f'{layer}bn.running_mean']
        state_dict[f'{layer}bn.running_mean'] = mean - bias


def _check_options(source: nn.Module, target: nn.Module) -> None:
    """Check that two blocks compute the same with the same parameters."""
    for option in _OPTIONS:
        if option == 'use_scale' and target.mode != 'embedded_gaussian':
            continue
        theirs, ours = (
            getattr(block, option, _OPTIONS[option]) for block in (source, target)
        )
        if theirs != ours:
            raise CheckpointMismatchError(
                f'{option} of the blocks is {theirs!r} in the source, but '
                f'{ours!r} in the target'
            )


def _same_layer(shape: torch.Size, wanted: torch.Size) -> bool:
    """Whether shapes differ only in a frame, or in last dimensions, of size 1."""
    shorter, longer = sorted((tuple(shape), tuple(wanted)), key=len)
    return longer in (
        shorter,
        (*shorter[:2], 1, *shorter[2:]),
        shorter + (1,) * (len(longer) - len(shorter)),
    )
