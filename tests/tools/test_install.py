"""tools/install.sh and tools/install.py: what they install, find and say.

Nothing is installed: the scripts run in a copy, in an environment with a pip
that writes down what it is asked for, and packages that a test pretends.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPO = Path(__file__).resolve().parents[2]
#: Nothing is there before it is asked for. It needs a compiler for mmcv.
PIP = """
import os, shutil, sys
if 'PIP_NO_INDEX' in os.environ:
    sys.exit(1)
with open(os.environ['ASKED'], 'a') as file:
    print(*sys.argv[1:], file=file)
if 'mmcv==' in sys.argv[-1] and 'WHEEL' not in os.environ:
    print('[9/20] c++\\n[10/20] c++\\nnoise')
    if not shutil.which(os.environ.get('CXX', 'c++')):
        sys.exit('error: not built')
"""
EXT = """
import os
if 'BROKEN' in os.environ:
    raise ImportError('undefined symbol')
def get_compiling_cuda_version():
    return 'not available'
"""


class Copy:
    """A copy of the repository's tools with an environment of its own."""

    def __init__(self, folder):
        self.fakes = folder / 'fakes'
        self.root = folder / 'a copy'
        shutil.copytree(REPO / 'tools', self.root / 'tools')
        shutil.copytree(REPO / 'requirements', self.root / 'requirements')
        venv.create(self.root / '.venv', symlinks=True)
        self.fakes.mkdir()
        self.write('pip/__init__.py', '')
        self.write('pip/__main__.py', PIP)
        self.write('psutil.py', ('class virtual_memory:\n    available = 2**40\n'))
        self.write('cv2.py', '')
        self.write('mmengine.py', "__version__ = '0'")
        self.write('mmcv/__init__.py', "__version__ = '0'")
        self.write('mmcv/_ext.py', EXT)
        self.pretend_torch(None)

    def write(self, path, text, program=False):
        path = self.fakes / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if program:
            path.chmod(0o755)
        return path

    def pretend(self, name, version):
        """Pretend that a distribution is installed."""
        self.write(
            f'{name}-{version}.dist-info/METADATA',
            f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n',
        )

    def pretend_torch(self, cuda):
        """Pretend that torch was built with that CUDA."""
        self.write(
            'torch/__init__.py',
            f"__version__ = '2.13.0'\nclass version:\n    cuda = {cuda!r}\n"
            'class cuda:\n    is_available = staticmethod(lambda: False)\n',
        )

    def run(self, *command, **variables):
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name
            not in ('VIRTUAL_ENV', 'CONDA_PREFIX', 'PYTHON', 'CXX', 'FORCE_CUDA')
        }
        fixed = {
            'PYTHONPATH': str(self.fakes),
            'VIRTUAL_ENV': str(self.root / '.venv'),
            'ASKED': str(self.fakes / 'asked'),
        }
        return subprocess.run(
            command,
            cwd=self.root,
            env=inherited | fixed | variables,
            capture_output=True,
            text=True,
        )

    def install(self, *args, **variables):
        """Run the installer; return what it asked pip for and its output."""
        result = self.run('/bin/bash', 'tools/install.sh', *args, **variables)
        assert result.returncode == 0, result.stderr
        return (self.fakes / 'asked').read_text().splitlines(), result.stdout

    def refuse(self, *args, **variables):
        """Run the installer, which must fail; return its line of error."""
        result = self.run('/bin/bash', 'tools/install.sh', *args, **variables)
        assert result.returncode == 1
        *lines, line = result.stderr.splitlines()
        assert line.startswith('error: ')
        assert lines == ['error: not built'] * ('reasons above' in line)
        return line


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def test_pip_installs_the_stack_and_builds_mmcv_after_torch(copy):
    copy.pretend('mmcv_lite', '2.1.0')
    asked, output = copy.install()
    torch, rest, lite, mmcv, own = asked
    assert torch == 'install -r requirements/build.txt torch==2.13.0'
    assert rest.endswith('-r requirements/dev.txt')
    assert lite == 'uninstall -y mmcv-lite mmcv-full'
    assert mmcv.endswith('--no-build-isolation --force-reinstall mmcv==2.1.0')
    assert 'compiled 10 of 20 files' in output and 'noise' not in output
    assert own.endswith('--no-deps -e .')
    assert output.endswith('torch 2.13.0, mmengine 0, mmcv 0 with ops for CPUs\n')


def test_a_wheel_of_mmcv_needs_no_compiler(copy):
    asked, _ = copy.install(WHEEL='1', CXX='/not/there')
    assert [line for line in asked if 'mmcv' in line] == [
        'install -v --no-deps --no-build-isolation --force-reinstall mmcv==2.1.0'
    ]


def test_an_installed_mmcv_with_its_ops_is_left_as_it_is(copy):
    copy.pretend('mmcv', '2.1.0')
    asked, _ = copy.install()
    assert not any('mmcv' in line for line in asked)


def test_ops_that_do_not_load_are_built_without_the_cache(copy):
    copy.pretend('mmcv', '2.1.0')
    line = copy.refuse(BROKEN='1')
    assert 'its ops do not load (ImportError: undefined symbol)' in line
    asked = (copy.fakes / 'asked').read_text().splitlines()
    assert asked[-1].startswith('install -v --no-binary mmcv --no-cache-dir')


def test_forks_take_the_place_of_the_toolboxes(copy):
    asked, _ = copy.install('--stack', 'onedl')
    assert any(line.endswith('onedl-mmcv==2.3.6') for line in asked)
    pins = (REPO / 'requirements/onedl.txt').read_text().splitlines()
    assert 'onedl-mmdetection==3.5.1' in pins and 'ftfy' in pins
    assert not any(line.startswith(('mm', 'decord')) for line in pins)


def test_extras_come_last_and_need_torchvision(copy):
    line = copy.refuse('--with', 'pose')
    asked = (copy.fakes / 'asked').read_text().splitlines()
    assert asked[-1] == 'install torch==2.13.0 torchvision'
    assert 'torchvision cannot be imported (ModuleNotFoundError' in line
    assert 'that was built for torch==2.13.0' in line
    copy.write('torchvision.py', '')
    *_, cls, pose, own = copy.install('--with', 'cls', 'pose')[0]
    assert cls == 'install --no-deps --no-build-isolation -r requirements/cls.txt'
    assert pose.endswith('-r requirements/pose.txt')
    assert own.endswith('--no-deps -e .')


@pytest.mark.parametrize(
    'version, kept', [('2.1.0', True), ('2.9.0+cu126', True), ('2.0.1', False)]
)
def test_installed_torch_is_kept_if_it_is_recent_enough(copy, version, kept):
    copy.pretend('torch', version)
    (torch, *_), _ = copy.install()
    assert torch.endswith(f' torch=={version if kept else "2.13.0"}')


def test_cv2_without_its_libraries_becomes_the_headless_one(copy):
    copy.pretend('opencv_python', '4.12.0')
    copy.write(
        'cv2.py', "raise ImportError('libGL.so.1: cannot open shared object file')"
    )
    assert 'cv2 cannot be imported: ImportError: libGL.so.1' in copy.refuse()
    asked = (copy.fakes / 'asked').read_text()
    assert '--no-deps opencv-python-headless==4.12.0' in asked


def test_a_wheel_without_cuda_ops_is_not_taken_for_a_gpu(copy):
    copy.pretend_torch('13.0')
    line = copy.refuse(FORCE_CUDA='1', WHEEL='1')
    assert 'its ops do not load (built without CUDA)' in line


def python39(copy, path):
    return copy.write(
        path, '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\n', program=True
    )


def test_unsupported_python(copy):
    python = python39(copy, 'env/bin/python')
    shutil.rmtree(copy.root / '.venv')
    line = copy.refuse(PYTHON=str(python), VIRTUAL_ENV='')
    assert f'PYTHON={python} is Python 3.9.1: install' in line
    assert not copy.root.joinpath('.venv').exists()
    env = str(python.parents[1])
    assert f'{env} has Python 3.9.1, but' in copy.refuse(VIRTUAL_ENV=env)


def test_active_environment_without_python(copy):
    assert 'has no bin/python' in copy.refuse(VIRTUAL_ENV='/not/there')
    assert 'has no bin/python' in copy.refuse(
        VIRTUAL_ENV='', CONDA_PREFIX='/not/there', CONDA_DEFAULT_ENV='project'
    )


def test_python_without_venv(copy):
    shutil.rmtree(copy.root / '.venv')
    python = copy.write(
        'python',
        '#!/bin/sh\ncase $2 in *ensurepip*) exit 1;; esac\n'
        f'exec "{sys.executable}" "$@"\n',
        True,
    )
    line = copy.refuse(PYTHON=str(python), VIRTUAL_ENV='')
    assert 'with its venv module is needed' in line


def test_what_a_failed_build_needs_is_said_below_its_errors(copy):
    assert 'toolkit' not in copy.refuse(CXX='/not/there')
    copy.pretend_torch('13.0')
    line = copy.refuse(CXX='/not/there')  # which checks that errors are shown
    for words in (
        'for the reasons above',
        f'apt-get install g++ python3.{sys.version_info.minor}-dev',
        'with a GPU also the CUDA toolkit 13.0 (CUDA_HOME)',
    ):
        assert words in line


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--stack', 'mmcv'], "--stack must be openmmlab or onedl, but got 'mmcv'"),
        (['--stack'], "--stack must be openmmlab or onedl, but got ''"),
        (['onedl'], "takes --stack and then --with cls pose, but got 'onedl'"),
        (['--with', 'det'], "--with cls pose, but got '--with det'"),
        (['--with'], "--with cls pose, but got '--with'"),
    ],
)
def test_wrong_arguments(copy, arguments, words):
    assert words in copy.refuse(*arguments)


@pytest.mark.parametrize('option', ['--help', '-h'])
@pytest.mark.parametrize('script', ['demo', 'test', 'install'])
def test_help_installs_nothing(copy, script, option):
    shutil.rmtree(copy.root / '.venv')
    result = copy.run('/bin/bash', f'tools/{script}.sh', option)
    assert result.returncode == 0 and not result.stderr
    assert f'bash tools/{script}.sh [' in result.stdout
    assert 'set -e' not in result.stdout
    assert not copy.root.joinpath('.venv').exists()


def test_another_clone_in_the_environment_is_named(copy):
    other = copy.fakes / 'another clone'
    other.mkdir()
    copy.pretend('nl_plugins', '0')
    origin = copy.write(
        'nl_plugins-0.dist-info/direct_url.json',
        json.dumps(dict(url=other.as_uri(), dir_info=dict(editable=True))),
    )
    line = copy.refuse()
    assert f'runs nl_plugins of another clone, {other}' in line
    assert 'pip uninstall nl_plugins' in line
    other.rmdir()  # gone: nobody needs it
    copy.install()
    origin.write_text(
        json.dumps(dict(url=copy.root.as_uri(), dir_info=dict(editable=True)))
    )
    copy.install()


@pytest.mark.parametrize(
    'stack, name',
    [('onedl', 'mmaction2'), ('openmmlab', 'onedl_mmdetection')],
)
def test_stacks_share_no_environment(copy, stack, name):
    copy.pretend(name, '1.0')
    line = copy.refuse('--stack', stack)
    assert f'of another stack than {stack}: use a separate' in line
    assert name.replace('_', '-') in line


def test_forks_have_an_environment_of_their_own(copy):
    python = python39(copy, '../a copy/.venv-onedl/bin/python')
    line = copy.refuse('--stack', 'onedl', VIRTUAL_ENV='')
    assert f'{python.resolve().parents[1]} has Python 3.9.1' in line
