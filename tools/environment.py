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


def read_pins() -> dict[str, list[str]]:
    """Read the requirements of ``setup.cfg``.

    Returns:
        dict[str, list[str]]: The groups ``torch`` (for an environment that
        has none), ``build`` (what builds mmcv), ``mmcv`` and ``rest`` (all
        else that the package and its extras need).
    """
    config = configparser.RawConfigParser()
    config.read(ROOT / 'setup.cfg', encoding='utf-8')

    def lines(section, option):
        return config.get(section, option).strip().splitlines()

    needed = lines('options', 'install_requires')
    for extra in config.options('options.extras_require'):
        needed += lines('options.extras_require', extra)
    names = [Requirement(line).name for line in needed]
    return {
        'torch': lines('tool:install', 'torch'),
        'build': lines('tool:install', 'build'),
        'mmcv': [line for line, name in zip(needed, names) if name == 'mmcv'],
        'rest': [
            line for line, name in zip(needed, names)
            if name not in ('mmcv', NAME)
        ]
    }


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
                todo += [(Requirement(line), option)
                         for line in dist.requires or ()]
    return sorted(found)


def is_editable() -> bool:
    """Whether the package is installed from this very folder."""
    dist = installed(NAME)
    text = dist and dist.read_text('direct_url.json')
    if not text:
        return False
    origin = json.loads(text)
    path = urllib.request.url2pathname(
        urllib.parse.urlparse(origin['url']).path)
    return (origin.get('dir_info', {}).get('editable', False)
            and Path(path).resolve() == ROOT)


def conflicts() -> list[str]:
    """List installed distributions that fill mmcv's folder as well."""
    return [name for name in ('mmcv-lite', 'mmcv-full') if installed(name)]


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
        torch.version.cuda is not None and torch.cuda.is_available())


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
        return (f'FORCE_CUDA=1 is set, but the installed torch '
                f'{torch.__version__} is built without CUDA: unset it, or '
                'install a torch with CUDA')
    advice = (f'install the CUDA toolkit {version}, as of the installed torch '
              f'{torch.__version__}, and set CUDA_HOME to its folder')
    nvcc = Path(CUDA_HOME or '', 'bin', 'nvcc')
    if CUDA_HOME is None or not nvcc.exists():
        return f"mmcv's CUDA ops need the compiler nvcc: {advice}"
    text = subprocess.run([nvcc, '--version'], capture_output=True,
                          text=True).stdout
    release = re.search(r'release ((\d+)\.\d+)', text)
    if not release or release[2] != version.split('.')[0]:
        was = release[1] if release else 'of an unknown version'
        return f'{nvcc} is {was}: {advice}'
    return None


def problems() -> list[str]:
    """List everything that is missing, in conflict or broken."""
    pins = read_pins()
    found = missing(pins['build'] + pins['mmcv'] + pins['rest'])
    if not is_editable():
        found.append(f'{NAME}, installed from this folder')
    found += [f'mmcv without {name} beside it' for name in conflicts()]
    if installed('opencv-python') and (error := import_error('cv2')):
        found.append(f'a cv2 that can be imported ({error})')
    elif installed('mmcv') and installed('torch') and (error := ops_error()):
        found.append(f'mmcv with its ops ({error})')
    return found


def write(folder: Path) -> None:
    """Write the requirement groups and ``constraints.txt`` for pip.

    The constraints are all pins, and the installed torch if it satisfies
    ``setup.cfg``.
    """
    pins = read_pins()
    torch = installed('torch')
    wanted = next(requirement for requirement in map(Requirement, pins['rest'])
                  if requirement.name == 'torch')
    if torch and wanted.specifier.contains(torch.version, prereleases=True):
        pins['torch'] = [f'torch=={torch.version}']
    pins['constraints'] = sum(pins.values(), [])
    for group, lines in pins.items():
        text = ''.join(f'{line}\n' for line in lines)
        folder.joinpath(f'{group}.txt').write_text(text, encoding='utf-8')


def summary() -> str:
    """Name the versions that matter."""
    import torch
    from mmcv import _ext
    cuda = _ext.get_compiling_cuda_version()
    ops = 'CPU' if cuda == 'not available' else f'CUDA {cuda}'
    names = 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmaction2'
    versions = [f'torch {torch.__version__}'] + [
        f'{name} {metadata.version(name)}' for name in names]
    return f"{', '.join(versions)}; mmcv's ops: {ops}"


def check() -> None:
    """Print the versions, or all problems and exit with status 3."""
    found = problems()
    print('\n'.join(found) or summary())
    if found:
        sys.exit(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('check', help='the versions if all is well; else what '
                        'is missing or broken, a line each, and status 3')
    commands.add_parser('conflicts', help="what fills mmcv's folder too")
    commands.add_parser('cv2', help='why cv2 cannot be imported, if so')
    commands.add_parser('ops', help="why mmcv's ops do not load, if so")
    commands.add_parser('toolkit', help="why CUDA ops can't be built, if so")
    writer = commands.add_parser('write', help='requirement files for pip')
    writer.add_argument('folder', type=Path)
    args = parser.parse_args()
    if args.command == 'check':
        check()
    elif args.command == 'write':
        write(args.folder)
    elif args.command == 'conflicts':
        print('\n'.join(conflicts()))
    else:
        error = {
            'cv2': lambda: import_error('cv2'),
            'ops': ops_error,
            'toolkit': toolkit_error
        }[args.command]()
        print(error or '')


if __name__ == '__main__':
    main()
