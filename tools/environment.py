"""Compare the environment of this Python with the pins of ``setup.cfg``.

Used by ``tools/install.sh``; needs nothing but ``packaging``.
"""

import argparse
import configparser
import importlib
import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NAME = 'nl_plugins'
MMCV = 'mmcv', 'onedl-mmcv'
STACKS = 'openmmlab', 'onedl'


def read_config() -> configparser.RawConfigParser:
    """Read ``setup.cfg``."""
    config = configparser.RawConfigParser()
    config.read(ROOT / 'setup.cfg', encoding='utf-8')
    return config


def read_forks() -> dict[str, list[str]]:
    """Read what the stack onedl has in place of OpenMMLab's packages.

    Returns:
        dict[str, list[str]]: By the name of a package its fork and what that
        needs, an empty list if it has none.
    """
    section = read_config()['tool:install:onedl']
    return {name: text.split() for name, text in section.items()}


def packages(stack: str) -> list[str]:
    """Name OpenMMLab's packages, or their forks."""
    forks = read_forks()
    if stack == 'onedl':
        return [Requirement(fork[0]).name for fork in forks.values() if fork]
    return list(forks)


def read_pins(stack: str) -> dict[str, list[str]]:
    """Read the requirements of ``setup.cfg``.

    Args:
        stack (str): One of ``STACKS``.

    Returns:
        dict[str, list[str]]: The groups ``torch`` (for an environment that
        has none), ``build`` (what builds mmcv), ``mmcv`` and ``rest`` (all
        else that the package and its extras need).
    """
    config = read_config()

    def lines(section, option):
        return config.get(section, option).strip().splitlines()

    groups = [lines('options', 'install_requires')] + [
        lines('options.extras_require', extra)
        for extra in config.options('options.extras_require')
    ]
    if stack == 'onedl':
        groups = [replace(group) for group in groups]
    needed = sum(groups, [])
    names = [Requirement(line).name for line in needed]
    return {
        'torch': lines('tool:install', 'torch'),
        'build': lines('tool:install', 'build'),
        'mmcv': [line for line, name in zip(needed, names) if name in MMCV],
        'rest': [
            line for line, name in zip(needed, names) if name not in (*MMCV, NAME)
        ],
    }


def replace(lines: list[str]) -> list[str]:
    """Put forks in place of OpenMMLab's packages.

    Returns:
        list[str]: The requirements; none if one of them has no fork.
    """
    forks = read_forks()
    found = [forks.get(Requirement(line).name, [line]) for line in lines]
    return sum(found, []) if all(found) else []


def installed(name: str) -> metadata.Distribution | None:
    """Find an installed distribution, ``None`` if there is none."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def missing(lines: list[str]) -> list[str]:
    """List the requirements, and theirs in turn, that are not installed."""
    found, seen = set(), set()
    todo = [(Requirement(line), '') for line in lines]
    while todo:
        requirement, extra = todo.pop()
        marker = requirement.marker
        if marker and not marker.evaluate({'extra': extra}):
            continue
        wanted = f'{requirement.name}{requirement.specifier}'
        dist = installed(requirement.name)
        if dist is None:
            found.add(wanted)
            continue
        if not requirement.specifier.contains(dist.version, prereleases=True):
            found.add(f'{wanted} ({dist.version} is installed)')
        for option in ('', *requirement.extras):
            if (requirement.name, option) not in seen:
                seen.add((requirement.name, option))
                todo += [(Requirement(line), option) for line in dist.requires or ()]
    return sorted(found)


def editable_from() -> Path | None:
    """The folder that the package is installed from in editable mode, if it
    is."""
    dist = installed(NAME)
    text = dist and dist.read_text('direct_url.json')
    origin = json.loads(text or '{}')
    if not origin.get('dir_info', {}).get('editable', False):
        return None
    path = urllib.request.url2pathname(urllib.parse.urlparse(origin['url']).path)
    return Path(path).resolve()


def other_clone() -> Path | None:
    """Another clone that the environment runs, which still exists."""
    folder = editable_from()
    return folder if folder not in (None, ROOT) and folder.exists() else None


def conflicts() -> list[str]:
    """List installed distributions that fill mmcv's folder as well."""
    return [name for name in ('mmcv-lite', 'mmcv-full') if installed(name)]


def others(stack: str) -> list[str]:
    """List installed distributions of the other stack: they fill the same
    folders."""
    return [
        name
        for other in STACKS
        if other != stack
        for name in packages(other)
        if installed(name)
    ]


def opencv() -> str:
    """Name the OpenCV that is installed, the one with most in it."""
    name = next(filter(installed, ('opencv-contrib-python', 'opencv-python')))
    return f'{name}=={metadata.version(name)}'


def import_error(module: str) -> str | None:
    """Say why a module cannot be imported, ``None`` if it can."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        return str(error).splitlines()[0]
    return None


def wants_cuda() -> bool:
    """Whether CUDA ops are wanted: there is a GPU, or FORCE_CUDA=1 is set."""
    import torch

    return os.environ.get('FORCE_CUDA') == '1' or (
        torch.version.cuda is not None and torch.cuda.is_available()
    )


def ops_error() -> str | None:
    """Say why mmcv's ops cannot be used, ``None`` if they can."""
    error = import_error('mmcv._ext')
    if error:
        return error
    from mmcv import _ext

    if wants_cuda() and _ext.get_compiling_cuda_version() == 'not available':
        return 'built without CUDA'
    return None


def toolkit_error() -> str | None:
    """Say why mmcv's CUDA ops cannot be built, ``None`` if they can be or are
    not wanted."""
    if not wants_cuda():
        return None
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    version = torch.version.cuda
    if version is None:
        return (
            f'FORCE_CUDA=1 is set, but the installed torch '
            f'{torch.__version__} is built without CUDA: unset it, or '
            'install a torch with CUDA'
        )
    advice = (
        f'install the CUDA toolkit {version}, as of the installed torch '
        f'{torch.__version__}, and set CUDA_HOME to its folder'
    )
    nvcc = Path(CUDA_HOME or '', 'bin', 'nvcc')
    if CUDA_HOME is None or not nvcc.exists():
        return f"mmcv's CUDA ops need the compiler nvcc: {advice}"
    text = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
    release = re.search(r'release ((\d+)\.\d+)', text)
    if not release or release[2] != version.split('.')[0]:
        was = release[1] if release else 'of an unknown version'
        return f'{nvcc} is {was}: {advice}'
    return None


def problems(stack: str) -> list[str]:
    """List everything that is missing, in conflict or broken."""
    pins = read_pins(stack)
    found = missing(pins['build'] + pins['mmcv'] + pins['rest'])
    if editable_from() != ROOT:
        found.append(f'{NAME}, installed from this folder')
    found += [f'mmcv without {name} beside it' for name in conflicts()]
    if installed('opencv-python') and (error := import_error('cv2')):
        found.append(f'a cv2 that can be imported ({error})')
    elif any(map(installed, MMCV)) and installed('torch') and (error := ops_error()):
        found.append(f'mmcv with its ops ({error})')
    return found


def write(stack: str, folder: Path) -> None:
    """Write the requirement groups and ``constraints.txt`` for pip.

    The constraints are all pins, and the installed torch if it satisfies
    ``setup.cfg``.
    """
    pins = read_pins(stack)
    torch = installed('torch')
    wanted = next(
        requirement
        for requirement in map(Requirement, pins['rest'])
        if requirement.name == 'torch'
    )
    if torch and wanted.specifier.contains(torch.version, prereleases=True):
        pins['torch'] = [f'torch=={torch.version}']
    pins['constraints'] = sum(pins.values(), [])
    for group, lines in pins.items():
        text = ''.join(f'{line}\n' for line in lines)
        folder.joinpath(f'{group}.txt').write_text(text, encoding='utf-8')


def summary(stack: str) -> str:
    """Name the versions that matter."""
    import torch
    from mmcv import _ext

    cuda = _ext.get_compiling_cuda_version()
    ops = 'CPU' if cuda == 'not available' else f'CUDA {cuda}'
    versions = [f'torch {torch.__version__}'] + [
        f'{name} {metadata.version(name)}' for name in packages(stack)
    ]
    return f"{', '.join(versions)}; mmcv's ops: {ops}"


def check(stack: str) -> None:
    """Print the versions, or all problems and exit with status 3."""
    found = problems(stack)
    print('\n'.join(found) or summary(stack))
    if found:
        sys.exit(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--stack', choices=STACKS, default=STACKS[0])
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser(
        'check',
        help='the versions if all is well; else what '
        'is missing or broken, a line each, and status 3',
    )
    commands.add_parser('clone', help='another clone that is installed, if so')
    commands.add_parser('conflicts', help="what fills mmcv's folder too")
    commands.add_parser('cv2', help='why cv2 cannot be imported, if so')
    commands.add_parser('opencv', help='which OpenCV is installed')
    commands.add_parser('ops', help="why mmcv's ops do not load, if so")
    commands.add_parser('others', help='what is there of the other stack')
    commands.add_parser('toolkit', help="why CUDA ops can't be built, if so")
    writer = commands.add_parser('write', help='requirement files for pip')
    writer.add_argument('folder', type=Path)
    args = parser.parse_args()
    if args.command == 'check':
        check(args.stack)
    elif args.command == 'write':
        write(args.stack, args.folder)
    elif args.command == 'conflicts':
        print('\n'.join(conflicts()))
    elif args.command == 'opencv':
        print(opencv())
    elif args.command == 'others':
        print('\n'.join(others(args.stack)))
    else:
        error = {
            'clone': other_clone,
            'cv2': lambda: import_error('cv2'),
            'ops': ops_error,
            'toolkit': toolkit_error,
        }[args.command]()
        print(error or '')


if __name__ == '__main__':
    main()
