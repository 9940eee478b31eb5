"""Files of pretrained weights as their publishers name and shape them.

The values are random. The names of the parameters are written down here, not
taken from a model that loads them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import mmengine
import torch
from torch import Tensor, nn

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_TABLES = {
    'torchvision': 'torchvision_0.12.json',
    'open-mmlab': 'openmmlab.json',
    'mmcls': 'mmcls.json',
}


def url_of(name: str) -> str:
    """The address of pretrained weights, as mmengine's own tables have it."""
    scheme, _, key = name.partition('://')
    if scheme not in _TABLES:
        return name
    table = Path(mmengine.__file__).parent / 'hub' / _TABLES[scheme]
    return json.loads(table.read_text())[key]


def names_in(cfg: dict) -> Iterator[str]:
    """The names of the pretrained weights in the config of a model."""
    if isinstance(cfg.get('pretrained'), str):
        yield cfg['pretrained']
    if cfg.get('type') == 'Pretrained':
        yield cfg['checkpoint']
    for value in cfg.values():
        if isinstance(value, dict):
            yield from names_in(value)


def file_of(home: Path, name: str) -> Path:
    """Where ``torch.hub`` looks for pretrained weights below TORCH_HOME."""
    return home / 'hub' / 'checkpoints' / url_of(name).rpartition('/')[2]


def write(
    home: Path, name: str, state: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Write a file of pretrained weights unless it is there.

    Args:
        home (Path): Folder that TORCH_HOME names.
        name (str): Such as ``'torchvision://resnet50'`` or an address.
        state (dict[str, Tensor], optional): Its content. Defaults to None,
            what a published file of this name holds.

    Returns:
        dict[str, Tensor]: Its content.
    """
    path = file_of(home, name)
    # MMClassification's are whole classifiers.
    whole, prefix = name.startswith('mmcls://'), 'backbone.'
    if path.exists():
        state = torch.load(path)
        if not whole:
            return state
        return {
            key.removeprefix(prefix): value
            for key, value in state['state_dict'].items()
        }
    if state is None:
        state = published(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {prefix + key: value for key, value in state.items()}
    torch.save(dict(state_dict=content) if whole else state, path)
    return state


def published(file: str) -> dict[str, Tensor]:
    """Parameters of an ImageNet ResNet, ResNetV1c or ResNeXt by its file."""
    depth = int(re.search(r'res(?:net|next)(\d+)', file)[1])
    groups = re.search(r'_(\d+)x(\d+)d', file)
    return resnet(
        depth,
        deep_stem='_v1c' in file,
        groups=tuple(map(int, groups.groups())) if groups else (1, 64),
    )


def resnet(
    depth: int,
    deep_stem: bool = False,
    groups: tuple[int, int] = (1, 64),
    width: int = 64,
    stem: int = 64,
) -> dict[str, Tensor]:
    """Parameters of a ResNet in torchvision's names.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        deep_stem (bool): Whether it is the V1c of three 3 x 3 convolutions.
            Defaults to False.
        groups (tuple[int, int]): Groups, and channels of each in the first
            stage. Defaults to one of 64.
        width (int): Channels of the first stage. Defaults to 64.
        stem (int): Channels before it. Defaults to 64.
    """
    generator = torch.Generator().manual_seed(depth)
    state = {}

    def conv(name: str, out: int, channels: int, kernel: int) -> None:
        shape = out, channels, kernel, kernel
        state[f'{name}.weight'] = (
            torch.randn(shape, generator=generator) * (2 / (out * kernel**2)) ** 0.5
        )

    def norm(name: str, channels: int) -> None:
        for key in 'weight', 'bias', 'running_mean', 'running_var':
            value = torch.rand(channels, generator=generator)
            state[f'{name}.{key}'] = (
                value
                + 0.5 * (key in ('weight', 'running_var'))
                - 0.5 * (key in ('bias', 'running_mean'))
            )
        state[f'{name}.num_batches_tracked'] = torch.tensor(7)

    if deep_stem:
        sizes = (3, stem // 2, stem // 2, stem)
        for i, (channels, out) in enumerate(zip(sizes, sizes[1:])):
            conv(f'stem.{3 * i}', out, channels, 3)
            norm(f'stem.{3 * i + 1}', out)
    else:
        conv('conv1', stem, 3, 7)
        norm('bn1', stem)
    channels = stem
    number, per_group = groups
    expansion = 1 if depth < 50 else 4
    for stage, count in enumerate(_BLOCKS[depth]):
        inner = width * 2**stage
        out = inner * expansion
        middle = inner * per_group * number // 64
        for block in range(count):
            name = f'layer{stage + 1}.{block}'
            if expansion == 1:
                kernels = ((inner, channels, 3), (inner, inner, 3))
            else:
                kernels = (
                    (middle, channels, 1),
                    (middle, middle // number, 3),
                    (out, middle, 1),
                )
            for i, (o, c, kernel) in enumerate(kernels, 1):
                conv(f'{name}.conv{i}', o, c, kernel)
                norm(f'{name}.bn{i}', o)
            if channels != out or (block == 0 and stage):
                conv(f'{name}.downsample.0', out, channels, 1)
                norm(f'{name}.downsample.1', out)
            channels = out
    state['fc.weight'] = torch.randn(1000, channels, generator=generator)
    state['fc.bias'] = torch.randn(1000, generator=generator)
    return state


def assert_landed(backbone: nn.Module, file: dict[str, Tensor]) -> None:
    """Check that a backbone has the weights of a file in every layer.

    Blocks aside. Kernels in time have to sum up to the file's.
    """
    found = 0
    for key, value in backbone.state_dict().items():
        if '_block' in key or key.endswith('num_batches_tracked'):
            continue
        value, expected = value.float(), file[published_name(key)]
        if value.dim() == 5:
            value = value.sum(2)
        # equal() is faster, and nearly always true
        same = torch.equal(value, expected)
        assert same or torch.allclose(value, expected, rtol=1e-5, atol=1e-7), key
        found += 1
    assert found >= sum(
        not key.startswith('fc') and 'num_batches' not in key for key in file
    )


def published_name(key: str) -> str:
    """The name in the file for a key of a toolbox's backbone."""
    key = key.replace('.net.', '.')
    key = re.sub(r'downsample\.conv\.', 'downsample.0.', key)
    key = re.sub(r'downsample\.bn\.', 'downsample.1.', key)
    key = re.sub(r'conv(\d)\.conv\.', r'conv\1.', key)
    return re.sub(r'conv(\d)\.bn\.', r'bn\1.', key)
