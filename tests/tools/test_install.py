"""tools/install.sh and its tools/environment.py: what they find and say.

Nothing is installed: the scripts run in a copy, in an environment that sees
the packages of this one and, before them, those that a test pretends.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
# What the environment of this test sees.
STACK = ('--stack', 'openmmlab' if find_spec('mmaction') else 'onedl')


class Copy:
    """A copy of the repository's tools with an environment of its own."""

    def __init__(self, folder):
        self.fakes = folder / 'fakes'
        self.root = folder / 'a copy'
        shutil.copytree(REPO / 'tools', self.root / 'tools')
        shutil.copy(REPO / 'setup.cfg', self.root)
        venv.create(self.root / '.venv', symlinks=True)
        site = next(self.root.glob('.venv/lib/python*/site-packages'))
        site.joinpath('outer.pth').write_text(sysconfig.get_path('purelib'))
        # An mmcv without ops; the true ones take seconds to import.
        self.write('mmcv/__init__.py', '')
        self.write('cv2.py', '')
        # Not that of the clone that this test runs in.
        self.pretend('nl_plugins', '0')

    def write(self, path, text, program=False):
        path = self.fakes / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if program:
            path.chmod(0o755)
        return path

    def pretend(self, name, version, requires=''):
        """Pretend that a distribution is installed."""
        self.write(
            f'{name}-{version}.dist-info/METADATA',
            f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
            + (f'Requires-Dist: {requires}\n' if requires else ''),
        )

    def pretend_torch(self, cuda, toolkit=None):
        """Pretend that torch was built with that CUDA, and found a toolkit."""
        self.write(
            'torch/__init__.py',
            f"__version__ = '2.13.0'\nclass version:\n    cuda = {cuda!r}\n",
        )
        self.write('torch/utils/cpp_extension.py', f'CUDA_HOME = {toolkit!r}')

    def run(self, *command, **variables):
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name
            not in ('VIRTUAL_ENV', 'CONDA_PREFIX', 'PYTHON', 'CXX', 'FORCE_CUDA')
        }
        fixed = {
            'PYTHONPATH': str(self.fakes),
            'PIP_CACHE_DIR': str(self.fakes / 'cache'),
            'PIP_NO_INDEX': '1',  # a broken installer must not install
        }
        return subprocess.run(
            command,
            cwd=self.root,
            env=inherited | fixed | variables,
            capture_output=True,
            text=True,
        )

    def environment(self, *args, **variables):
        return self.run('.venv/bin/python', 'tools/environment.py', *args, **variables)

    def install(self, *args, **variables):
        """Run the installer, which must fail; return its line of error."""
        result = self.run('/bin/bash', 'tools/install.sh', *args, **variables)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith('error: ')
        return line


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def test_check_finds_wrong_version_and_missing_install(copy):
    copy.pretend('mmdet', '3.2.0')
    result = copy.environment('check')
    assert result.returncode == 3
    assert 'mmdet==3.3.0 (3.2.0 is installed)' in result.stdout.splitlines()
    assert 'nl_plugins, installed from this folder' in result.stdout


def test_check_finds_what_a_requirement_requires(copy):
    copy.pretend('mmdet', '3.3.0', requires='not-there>=2')
    assert 'not-there>=2' in copy.environment('check').stdout.splitlines()


def test_check_finds_mmcv_without_ops(copy):
    assert (
        "mmcv with its ops (No module named 'mmcv._ext')"
        in copy.environment('check').stdout.splitlines()
    )


def test_check_finds_cv2_without_its_libraries(copy):
    copy.write('cv2.py', "raise ImportError('libGL.so.1: cannot open')")
    assert (
        'a cv2 that can be imported (libGL.so.1: cannot open)'
        in copy.environment('check').stdout.splitlines()
    )


def test_check_finds_mmcv_lite(copy):
    copy.pretend('mmcv_lite', '2.1.0')
    assert (
        'mmcv without mmcv-lite beside it'
        in copy.environment('check').stdout.splitlines()
    )


@pytest.mark.parametrize(
    'version, kept', [('2.1.0', True), ('2.9.0+cu126', True), ('2.0.1', False)]
)
def test_installed_torch_is_kept_if_it_will_do(copy, version, kept):
    copy.pretend('torch', version)
    copy.environment('write', '.')
    pin = copy.root.joinpath('torch.txt').read_text()
    assert pin == (f'torch=={version}\n' if kept else 'torch==2.13.0\n')
    assert pin in copy.root.joinpath('constraints.txt').read_text()


@pytest.mark.parametrize(
    'cuda, release, words',
    [
        (None, None, 'built without CUDA'),
        ('13.0', None, 'need the compiler nvcc: install the CUDA toolkit 13.0'),
        ('13.0', '12.4', 'is 12.4: install the CUDA toolkit 13.0'),
        ('13.0', '13.2', ''),
    ],
)
def test_cuda_ops_need_a_matching_toolkit(copy, cuda, release, words):
    if release:
        copy.write(
            'toolkit/bin/nvcc',
            f'#!/bin/sh\necho "Cuda tools, release {release}, V"\n',
            program=True,
        )
    copy.pretend_torch(cuda, str(copy.fakes / 'toolkit'))
    output = copy.environment('toolkit', FORCE_CUDA='1').stdout.strip()
    assert words in output if words else not output


def test_cpu_ops_need_no_toolkit(copy):
    copy.pretend_torch(None)
    assert not copy.environment('toolkit').stdout.strip()


def test_unsupported_python(copy):
    python = copy.write('env/bin/python', '#!/bin/sh\necho 3.9\n', True)
    shutil.rmtree(copy.root / '.venv')
    assert f'PYTHON={python} is 3.9, but' in copy.install(PYTHON=str(python))
    assert not copy.root.joinpath('.venv').exists()
    env = str(python.parents[1])
    assert f'{env} has Python 3.9, but' in copy.install(VIRTUAL_ENV=env)


def test_active_environment_without_python(copy):
    assert 'has no bin/python' in copy.install(VIRTUAL_ENV='/not/there')
    assert 'has no bin/python' in copy.install(
        CONDA_PREFIX='/not/there', CONDA_DEFAULT_ENV='project'
    )


def test_python_without_venv(copy):
    shutil.rmtree(copy.root / '.venv')
    python = copy.write(
        'python',
        '#!/bin/sh\ncase $2 in *ensurepip*) exit 1;; esac\n'
        f'exec "{sys.executable}" "$@"\n',
        True,
    )
    assert 'install its venv module' in copy.install(PYTHON=str(python))


def test_missing_compiler(copy):
    env = {'VIRTUAL_ENV': str(copy.root / '.venv')}
    assert 'CXX=/not/there does not compile' in copy.install(
        *STACK, CXX='/not/there', **env
    )
    for name in (
        'cat',
        'dirname',
        'grep',
        'mkdir',
        'mktemp',
        'rm',
        'sleep',
        'tail',
        'wc',
    ):
        program = copy.fakes / 'bin' / name
        program.parent.mkdir(exist_ok=True)
        program.symlink_to(shutil.which(name))
    assert 'no C++ compiler was found' in copy.install(
        *STACK, PATH=str(copy.fakes / 'bin'), **env
    )


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--stack', 'mmcv'], "--stack must be openmmlab or onedl, but got 'mmcv'"),
        (['--stack'], "--stack must be openmmlab or onedl, but got ''"),
        (['onedl'], "takes nothing but --stack, but got 'onedl'"),
    ],
)
def test_wrong_arguments(copy, arguments, words):
    assert words in copy.install(*arguments)


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
    origin = copy.write(
        'nl_plugins-0.dist-info/direct_url.json',
        json.dumps(dict(url=other.as_uri(), dir_info=dict(editable=True))),
    )
    env = dict(VIRTUAL_ENV=str(copy.root / '.venv'))
    line = copy.install(*STACK, **env)
    assert f'runs nl_plugins of another clone, {other}' in line
    assert 'pip uninstall nl_plugins' in line
    other.rmdir()  # gone: nobody needs it
    assert not copy.environment('clone').stdout.strip()
    origin.write_text(
        json.dumps(dict(url=copy.root.as_uri(), dir_info=dict(editable=True)))
    )
    assert not copy.environment('clone').stdout.strip()
    assert 'installed from this folder' not in copy.environment('check').stdout


@pytest.mark.parametrize(
    'stack, name',
    [
        ('onedl', 'mmaction2'),
        ('openmmlab', 'onedl_mmdetection'),
    ],
)
def test_stacks_share_no_environment(copy, stack, name):
    copy.pretend(name, '1.0')
    line = copy.install('--stack', stack, VIRTUAL_ENV=str(copy.root / '.venv'))
    assert f'which is of another stack than {stack}: use an' in line
    assert name.replace('_', '-') in line


def test_forks_have_an_environment_of_their_own(copy):
    python = copy.write(
        '../a copy/.venv-onedl/bin/python', '#!/bin/sh\necho 3.9\n', True
    )
    assert f'{python.resolve().parents[1]} has Python 3.9' in copy.install(
        '--stack', 'onedl'
    )


def test_forks_take_the_place_of_the_toolboxes(copy):
    copy.environment('--stack', 'onedl', 'write', '.')
    assert copy.root.joinpath('mmcv.txt').read_text() == 'onedl-mmcv==2.3.6\n'
    rest = copy.root.joinpath('rest.txt').read_text().splitlines()
    assert 'onedl-mmdetection==3.5.1' in rest and 'ftfy' in rest
    # of the toolbox without a fork
    assert not {'mmdet==3.3.0', 'decord>=0.6.0', 'numpy<2'} & set(rest)
    copy.pretend('onedl_mmdetection', '3.4.0')
    lines = copy.environment('--stack', 'onedl', 'check').stdout.splitlines()
    assert 'onedl-mmdetection==3.5.1 (3.4.0 is installed)' in lines
