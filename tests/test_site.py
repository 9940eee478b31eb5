"""The documentation site builds without a warning, and needs no network."""

import html
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    for name in 'mkdocs', 'material', 'mkdocstrings', 'latex2mathml':
        pytest.importorskip(name, reason='the extra docs is not installed')
    folder = tmp_path_factory.mktemp('site')
    process = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout
    return folder


def pages(site):
    return {page.parent.name: page.read_text() for page in site.rglob('index.html')}


def test_every_page_is_in_it(site):
    for kind in 'md', 'ipynb':
        for page in (ROOT / 'docs').rglob(f'*.{kind}'):
            assert page.stem == 'README' or page.stem in pages(site)


def test_a_notebook_is_a_page_that_others_lead_to(site):
    page = pages(site)['tutorial']
    assert 'python tools/train.py' in html.unescape(re.sub('<[^>]*>', '', page))
    assert '.ipynb"' not in ''.join(pages(site).values())
    assert 'href="../tutorial/"' in pages(site)['compare']


def test_it_loads_nothing_from_elsewhere(site):
    for name, page in pages(site).items():
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="?([^" >]+)', page)
        loaded += re.findall(r'<link rel="?stylesheet"? href="?([^" >]+)', page)
        assert not [url for url in loaded if '//' in url], name


def test_public_names_have_a_reference(site):
    import nl_plugins

    text = ''.join(pages(site).values())
    for name in {*nl_plugins.__all__, *nl_plugins.functional.__all__}:
        assert re.search(rf'\b{name}\b', text), name


def test_docstrings_and_formulas_are_converted(site):
    for name, page in pages(site).items():
        text = html.unescape(
            re.sub(r'<(pre|code).*?</\1>|<[^>]*>', '', page, flags=re.S)
        )
        for left in (
            ':class:',
            ':func:',
            ':meth:',
            '.. math',
            '.. code',
            '`_',
            r'\(',
            '$$',
        ):
            assert left not in text, (name, left)
    assert '<math' in pages(site)['how_it_works']
    assert '<math' in pages(site)['blocks']


def test_links_to_files_of_the_repository():
    pytest.importorskip('latex2mathml', reason='the extra docs is not installed')
    spec = importlib.util.spec_from_file_location('hooks', ROOT / 'docs/hooks.py')
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)

    def rewritten(text, page, repo_url=None):
        return hooks.on_page_markdown(
            text,
            SimpleNamespace(file=SimpleNamespace(src_uri=page)),
            SimpleNamespace(docs_dir=str(ROOT / 'docs'), repo_url=repo_url),
            None,
        )

    text = '[a](../setup.cfg) [b](compare.md#examples)'
    url = 'https://example.org/nl_plugins'
    assert rewritten(text, 'forks.md') == (
        '<abbr title="setup.cfg">a</abbr> [b](compare.md#examples)'
    )
    assert rewritten(text, 'forks.md', url) == (
        f'[a]({url}/blob/main/setup.cfg) [b](compare.md#examples)'
    )
    text = '[a](../../README.md#install) [b](../compare.md)'
    assert rewritten(text, 'api/tools.md', url) == (
        f'[a]({url}/blob/main/README.md#install) [b](../compare.md)'
    )
