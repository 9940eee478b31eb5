"""Install a stack into the environment of this Python, for ``tools/install.sh``.

pip does what it can. Here is what it cannot do: keep the installed torch, compile
mmcv's ops for it, and name what would break later.
"""

import json
import os
import re
import shlex
import shutil
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
#: A sitecustomize.py for setup.py of mmcv. It reads its version with locals() after
#: exec(), which Python 3.13 no longer allows (PEP 667).
LOCALS = """
import builtins, sys
def run(code, *scopes, exec=exec):
    frame = sys._getframe(1)
    exec(code, *scopes or (frame.f_globals, frame.f_locals))
if any('setup.py' in argument for argument in sys.orig_argv):
    builtins.exec, builtins.locals = run, lambda: sys._getframe(1).f_locals
"""


def fail(message: str) -> None:
    sys.exit(f'error: {message}')


def read_requirements(stack: str) -> dict[str, str]:
    """Read the lines of a requirement file, by the names of the packages."""
    lines = (ROOT / f'requirements/{stack}.txt').read_text().splitlines()
    return {re.split('[=<>]', line)[0]: line for line in lines if line[0] != '#'}


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


def pip(what: str, *arguments: str, check: bool = True) -> bool:
    """Run pip with its output in the log; return whether it succeeded."""
    print(f'== {what}', flush=True)
    start, shown = time.monotonic(), 0.0
    with LOG.open('ab') as log:
        offset = log.tell()
        command = [sys.executable, '-m', 'pip', *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    while process.poll() is None:
        time.sleep(0.2)
        seconds = time.monotonic() - start
        if seconds > shown + (1 if sys.stdout.isatty() else 30):
            shown = seconds
            files = re.findall(
                rb'\[(\d+)/(\d+)\]', LOG.read_bytes()[offset:]
            )  # ninja's
            compiled = ''
            if files:
                done, total = map(int, files[-1])
                left = seconds * (total - done) / done
                compiled = f', compiled {done} of {total} files, {left:.0f} s left'
            end = '\r' if sys.stdout.isatty() else '\n'
            print(f'   {seconds:.0f} s{compiled} ', end=end, flush=True)
    clear = '\033[K' if sys.stdout.isatty() else ''
    print(f'   took {time.monotonic() - start:.0f} s{clear}', flush=True)
    if process.returncode and check:
        text = LOG.read_bytes()[offset:].decode(errors='replace')
        print(*re.findall('.*error: .*', text, re.I)[-5:], sep='\n', file=sys.stderr)
        if re.search('connection broken by|Max retries exceeded|timed out', text):
            fail(f'pip could not reach its package index: check the network; see {LOG}')
        fail(f'pip could not install the above; the log is {LOG}')
    return not process.returncode


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
    if found := installed(*names):
        fail(
            f'{sys.prefix} holds {", ".join(found)}, of another stack than '
            f'{stack}: use a separate environment.'
        )


def check_compilers() -> None:
    """See that mmcv's ops can be compiled, before anything long starts."""
    names = ['c++', 'g++', 'clang++']
    compiler = os.environ.get('CXX') or next(filter(shutil.which, names), '')
    if not compiler:
        fail(
            'no C++ compiler was found, and pip has no wheel of mmcv: install one '
            '(Debian, Ubuntu: apt-get install g++) or set CXX to it.'
        )
    os.environ['CXX'] = compiler
    command = [*shlex.split(compiler), '-std=c++17', '-x', 'c++', '-', '-o', os.devnull]
    program = b'#include <string>\nint main() { return std::string().size(); }\n'
    try:
        subprocess.run(command, input=program, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        fail(f'CXX={compiler} does not compile C++17: set it to a compiler that does.')
    header = Path(sysconfig.get_path('include'), 'Python.h')
    if not header.exists():
        fail(
            f"Python's headers are missing, there is no {header}: install them "
            f'(Debian, Ubuntu: apt-get install python3.{sys.version_info.minor}-dev).'
        )
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    cuda, forced = torch.version.cuda, os.environ.get('FORCE_CUDA') == '1'
    if not forced and not (cuda and torch.cuda.is_available()):
        return
    if cuda is None:
        fail(
            f'FORCE_CUDA=1 is set, but the installed torch {torch.__version__} is '
            'built without CUDA: unset it, or install a torch with CUDA.'
        )
    nvcc = Path(CUDA_HOME or '', 'bin/nvcc')
    text = subprocess.getoutput(f'{shlex.quote(str(nvcc))} --version')
    release = re.search(r'release ((\d+)\.\d+)', text)
    if not release or release[2] != cuda.split('.')[0]:
        fail(
            f"mmcv's CUDA ops need nvcc of CUDA {cuda}, but {nvcc} is "
            f'{release[1] if release else "missing"}: install the CUDA toolkit {cuda}, '
            f'as of torch {torch.__version__}, and set CUDA_HOME to its folder.'
        )


def install_mmcv(requirement: str, folder: Path) -> None:
    """Install a wheel of mmcv if its ops work here, else compile it."""
    if conflicts := installed('mmcv-lite', 'mmcv-full'):  # they fill the same folder
        names = [name.partition('==')[0] for name in conflicts]
        pip(f'Removing {", ".join(conflicts)}', 'uninstall', '-y', *names)
    elif run(CHECK)[0] and requirement in installed('mmcv', 'onedl-mmcv'):
        return
    name = requirement.partition('==')[0]
    install = [
        'install',
        '-v',
        '--no-deps',
        '--no-build-isolation',
        '--force-reinstall',
    ]
    wheel = pip(
        'mmcv: a wheel', *install, '--only-binary', name, requirement, check=False
    )
    if wheel and run(CHECK)[0]:
        return
    check_compilers()
    import psutil

    # 2 GiB a compiler; no debug symbols; CFLAGS replaces Python's, so repeat them.
    jobs = min(len(os.sched_getaffinity(0)), psutil.virtual_memory().available // 2**31)
    flags = [sysconfig.get_config_var('CFLAGS'), os.environ.get('CFLAGS'), '-g0']
    os.environ.setdefault('MAX_JOBS', str(max(jobs, 1)))
    os.environ |= {'MMCV_WITH_OPS': '1', 'CFLAGS': ' '.join(filter(None, flags))}
    if sys.version_info >= (3, 13):
        (folder / 'sitecustomize.py').write_text(LOCALS)
        paths = [str(folder), os.environ.get('PYTHONPATH')]
        os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    # The second time if pip's cache had one that was built for another torch.
    for options in [], ['--no-binary', name, '--no-cache-dir']:
        pip('mmcv with its ops (minutes)', *install, *options, requirement)
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


def main() -> None:
    (stack,) = sys.argv[1:]
    requirements = read_requirements(stack)
    check_environment(stack, requirements)
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_bytes(b'')
    for torch in installed('torch'):
        if tuple(map(int, re.findall(r'\d+', torch)[:2])) >= (2, 1):
            requirements['torch'] = torch
    mmcv = requirements.pop('mmcv', '') or requirements.pop('onedl-mmcv')
    build = ['-r', 'requirements/build.txt', requirements['torch']]
    pip('PyTorch and build tools', 'install', *build)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'requirements.txt')
        file.write_text('\n'.join(requirements.values()))
        rest = ['-r', str(file)]
        for name in 'docs', 'dev':
            rest += ['-r', f'requirements/{name}.txt']
        pip('Toolboxes, development and documentation tools', 'install', *rest)
        install_cv2()
        install_mmcv(mmcv, Path(folder))
    pip('nl_plugins', 'install', '--no-build-isolation', '--no-deps', '-e', '.')
    print(f'   {run(CHECK)[1]}')


if __name__ == '__main__':
    main()
