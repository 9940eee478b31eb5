"""Install a stack into the environment of this Python, for ``tools/install.sh``.

pip does what it can. Here is what it cannot do: keep the installed torch, compile
mmcv's ops for it, and name what would break later.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / 'work_dirs/install.log'
#: Prints the versions, or fails with the reason why mmcv's ops cannot be used.
CHECK = """
import os, torch, mmcv, mmengine
from mmcv import _ext
cuda = _ext.get_compiling_cuda_version().replace('not available', '')
if not cuda and torch.version.cuda and (
        os.environ.get('FORCE_CUDA') == '1' or torch.cuda.is_available()):
    raise SystemExit('built without CUDA')
print(f'torch {torch.__version__}, mmengine {mmengine.__version__}, mmcv '
      f"{mmcv.__version__} with ops for {f'CUDA {cuda}' if cuda else 'CPUs'}")
"""
#: A sitecustomize.py for setup.py of mmcv and xtcocotools. They read their version
#: with locals() after exec(), which Python 3.13 no longer allows (PEP 667).
EXEC = """
import builtins, sys
def run(code, *scopes, exec=exec, **closure):
    frame = sys._getframe(1)
    exec(code, *scopes or (frame.f_globals, frame.f_locals), **closure)
builtins.exec = run
"""


def fail(message: str) -> None:
    sys.exit(f'error: {message}')


def installed(*names: str) -> list[str]:
    """List which of the packages are installed, as ``name==version``."""
    found = [next(iter(metadata.distributions(name=name)), None) for name in names]
    return [f'{name}=={dist.version}' for name, dist in zip(names, found) if dist]


def run(code: str) -> tuple[bool, str]:
    """Run code in a new Python: whether it succeeded, and its last line."""
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    output = result.stderr if result.returncode else result.stdout
    return not result.returncode, output.rstrip().rpartition('\n')[2]


def pip(what: str, *arguments: str) -> None:
    """Run pip, which says nothing where all it shall install is there."""
    print(f'== {what}', flush=True)
    command = [sys.executable, '-m', 'pip', *arguments]
    offline = os.environ | {'PIP_NO_INDEX': '1'}
    quiet = subprocess.run([*command, '-qqq'], env=offline, stderr=subprocess.DEVNULL)
    if quiet.returncode and subprocess.run(command).returncode:
        fail(f'pip could not install the above; the log is {LOG}')


def pip_compile(*arguments: str) -> bool:
    """Run pip with the progress of ninja and lines of errors as all its output."""
    command = [sys.executable, '-m', 'pip', 'install', '-v', *arguments]
    start, live, pipe = time.monotonic(), sys.stdout.isatty(), subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=2, text=True) as process:
        for line in process.stdout or ():
            if compiled := re.search(r'\[(\d+)/(\d+)\]', line):
                done, total = map(int, compiled.groups())
                if live or done % 10 == 0:
                    left = (time.monotonic() - start) * (total - done) / done
                    text = f'   compiled {done} of {total} files, {left:.0f} s left '
                    print(text, end='\r' if live else '\n', flush=True)
            elif 'error: ' in line.lower():
                print(line, end='', file=sys.stderr)
    return not process.returncode


def read_requirements(stack: str) -> dict[str, str]:
    """Read the lines of a requirement file, by the names of the packages."""
    lines = (ROOT / f'requirements/{stack}.txt').read_text().splitlines()
    return {re.split('[=<>]', line)[0]: line for line in lines if line[0] != '#'}


def check_environment(stack: str, requirements: dict[str, str]) -> None:
    """Refuse an environment of another clone or of the other stack."""
    for dist in metadata.distributions(name='nl_plugins'):
        origin = json.loads(dist.read_text('direct_url.json') or '{}')
        clone = Path(url2pathname(urlparse(origin.get('url', '')).path)).resolve()
        editable = origin.get('dir_info', {}).get('editable', False)
        if editable and clone != ROOT and clone.exists():
            fail(
                f'{sys.prefix} runs nl_plugins of another clone, {clone}: use a '
                'separate environment for this one, or remove that one first: '
                f'{sys.executable} -m pip uninstall nl_plugins'
            )
        break  # the first is the one that is imported
    other = read_requirements('onedl' if stack == 'openmmlab' else 'openmmlab')
    names = [name for name in other if name not in requirements and 'mm' in name]
    if found := ', '.join(installed(*names)):
        fail(
            f'{sys.prefix} holds {found}, of another stack than {stack}: use a '
            'separate environment.'
        )


def install_mmcv(requirement: str) -> None:
    """Install a wheel of mmcv if its ops work here, else compile it."""
    if installed('mmcv-lite', 'mmcv-full'):  # they fill the same folder
        pip('Removing another mmcv', 'uninstall', '-y', 'mmcv-lite', 'mmcv-full')
    elif run(CHECK)[0] and requirement in installed('mmcv', 'onedl-mmcv'):
        return
    print('== mmcv with its ops (minutes, unless there is a wheel)', flush=True)
    options = ['--no-deps', '--no-build-isolation', '--force-reinstall', requirement]
    # pip found a wheel, or its cache has one, for another torch: compile it.
    compiling = ['--no-binary', requirement.partition('==')[0], '--no-cache-dir']
    for source in [], compiling:
        if not pip_compile(*source, *options):
            cuda = run('import torch; print(torch.version.cuda or "")')[1]
            toolkit = f', with a GPU also the CUDA toolkit {cuda} (CUDA_HOME)'
            fail(
                'pip could not build mmcv, for the reasons above. It needs a C++17 '
                "compiler (CXX) and Python's headers (Debian, Ubuntu: apt-get "
                f'install g++ python3.{sys.version_info.minor}-dev)'
                f'{toolkit if cuda else ""}. The log is {LOG}'
            )
        works, reason = run(CHECK)
        if works:
            return
    fail(f'mmcv was built, but its ops do not load ({reason}); the log is {LOG}')


def install_cv2() -> None:
    """Use a headless OpenCV where the libraries of a desktop are missing."""
    works, reason = run('import cv2')
    if not works and 'cannot open shared object file' in reason:
        wanted = installed('opencv-python')[0].replace('==', '-headless==')
        pip(f'{reason}: {wanted}', 'install', '--force-reinstall', '--no-deps', wanted)
        works, reason = run('import cv2')
    if not works:
        fail(f'cv2 cannot be imported: {reason}')


def install_extra(name: str, torch: str) -> None:
    """Install a toolbox that is not part of the stack, with a torchvision."""
    if not run('import torchvision')[0]:
        pip(f'torchvision for {torch}', 'install', torch, 'torchvision')
        works, reason = run('import torchvision')
        if not works:
            fail(
                f'torchvision cannot be imported ({reason}): install the one that was '
                f'built for {torch}, see https://pytorch.org/get-started'
            )
    file = f'requirements/{name}.txt'
    pip(name, 'install', '--no-deps', '--no-build-isolation', '-r', file)


def set_build_environment(folder: str) -> None:
    """Set the variables with which pip compiles; the folder is for a module."""
    import psutil

    # 2 GiB a compiler; no debug symbols; CFLAGS replaces Python's, so repeat them.
    jobs = min(len(os.sched_getaffinity(0)), psutil.virtual_memory().available // 2**31)
    flags = [sysconfig.get_config_var('CFLAGS'), os.environ.get('CFLAGS'), '-g0']
    Path(folder, 'sitecustomize.py').write_text(EXEC)
    paths = [folder, os.environ.get('PYTHONPATH')]
    os.environ.setdefault('MAX_JOBS', str(max(jobs, 1)))
    os.environ['MMCV_WITH_OPS'] = '1'
    os.environ['CFLAGS'] = ' '.join(filter(None, flags))
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, paths))


def main() -> None:
    stack, *extras = sys.argv[1:]
    requirements = read_requirements(stack)
    check_environment(stack, requirements)
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_bytes(b'')
    os.environ['PIP_LOG'] = str(LOG)
    for torch in installed('torch'):
        if tuple(map(int, re.findall(r'\d+', torch)[:2])) >= (2, 1):
            requirements['torch'] = torch
    mmcv = requirements.pop('mmcv', '') or requirements.pop('onedl-mmcv')
    build = ['-r', 'requirements/build.txt', requirements['torch']]
    pip('PyTorch and build tools', 'install', *build)
    rest = ['-r', 'requirements/docs.txt', '-r', 'requirements/dev.txt']
    what = 'Toolboxes, development and documentation tools'
    pip(what, 'install', *requirements.values(), *rest)
    install_cv2()
    with tempfile.TemporaryDirectory() as folder:
        set_build_environment(folder)
        install_mmcv(mmcv)
        for name in extras:
            install_extra(name, requirements['torch'])
        pip('nl_plugins', 'install', '--no-build-isolation', '--no-deps', '-e', '.')
        print(f'   {run(CHECK)[1]}')


if __name__ == '__main__':
    main()
