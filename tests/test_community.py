"""CITATION.cff, the workflows and the hooks agree with the package."""

import re
from pathlib import Path

import pytest
import yaml

import nl_plugins

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))


def test_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == nl_plugins.__version__
    assert citation['title'] == nl_plugins.__name__


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.name)
def test_workflows_only_read_and_use_files_that_exist(path):
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow['permissions'] == {'contents': 'read'}
    assert workflow['concurrency']['cancel-in-progress']
    files = re.findall(r'(?:requirements|tools|configs)/[\w./*-]+', text)
    assert files
    for name in files:
        assert list(ROOT.glob(name)), f'{path.name}: {name}'


def test_hooks_run_the_linters_of_the_dev_requirements():
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    entries = [
        hook['entry']
        for repo in config['repos']
        if repo['repo'] == 'local'
        for hook in repo['hooks']
    ]
    pinned = (ROOT / 'requirements/dev.txt').read_text()
    for entry in entries:
        tool = re.fullmatch(r'python -m (\w+) .*', entry)[1]
        assert f'\n{tool}==' in pinned
