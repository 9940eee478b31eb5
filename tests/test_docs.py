"""The configs of the pages build, and their links resolve."""

import importlib
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import hub
import pytest
import torch
from mmcv.cnn.bricks.non_local import _NonLocalNd
from mmengine.registry import MODELS, init_default_scope

from nl_plugins import MODELS as NL_MODELS
from nl_plugins import upgrade
from nl_plugins.blocks.base import NonLocalBlock
from nl_plugins.engine import build_model, load_config

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / 'README.md',
        *(ROOT / 'docs').rglob('*.md'),
        *(ROOT / 'configs').rglob('README.md'),
    ]
)
#: The README in Chinese, with the code of the English one.
CHINESE = ROOT / 'README_zh-CN.md'
FENCED = re.compile(r'^```.*?^```$', re.M | re.S)


def name(path):
    return path.relative_to(ROOT).as_posix()


# Configs ------------------------------------------------------------------


def python_blocks(page):
    """Number of its first line, and text, of every Python block.

    Of a diff, the text after it.
    """
    text = (ROOT / page).read_text()
    for match in re.finditer(r'^```(python|diff)\n(.*?)^```$', text, re.M | re.S):
        code = match[2]
        if match[1] == 'diff':
            code = ''.join(re.findall(r'^[ +](.*\n)', code, re.M))
        yield text.count('\n', 0, match.start()) + 2, code


def is_config(code):
    return re.search(r'^(_base_|model) = ', code, re.M)


#: Its configs are all complete; elsewhere an excerpt inherits nothing.
COMPLETE = 'docs/inserting.md'
#: Its configs use the modules that it defines.
EXTENDING = 'docs/extending.md'
CONFIGS = [
    pytest.param(code, id=f'{page}:{line}')
    for page in map(name, PAGES)
    if page != EXTENDING
    for line, code in python_blocks(page)
    if is_config(code) and ('_base_' in code or page == COMPLETE)
]


def build(file):
    """The model of a config, for its structure alone."""
    cfg = load_config(str(file))
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    # Stochastic depth computes its rates.
    needs_data = re.search('Swin|MixVision|ConvNeXt|VisionTrans', str(cfg.model))
    with torch.device('cpu' if needs_data else 'meta'):
        model = MODELS.build(cfg.model)
    if dict(type='nl_plugins.UpgradeNonLocalHook') in cfg.get('custom_hooks', []):
        upgrade(model)
    return model


def ours(model):
    return {
        key
        for key, module in model.named_modules()
        if isinstance(module, NonLocalBlock)
    }


def check_config(code, folder):
    file = folder / 'config.py'
    file.write_text(code)
    model = build(file)
    named = set(re.findall(r'^# -> (\S+)$', code, re.M))
    if named:
        modules = {key: model.get_submodule(key) for key in named}
        assert ours(model) == {
            key
            for key, module in modules.items()
            if isinstance(module, _NonLocalNd)  # upstream's would be too much
        }
    else:
        assert bool(ours(model)) == ('nl_plugins' in code)


@pytest.mark.parametrize('code', CONFIGS)
def test_a_config_builds_with_the_blocks_it_names(code, tmp_path):
    for toolbox in 'mmaction', 'mmpose', 'mmpretrain':
        if toolbox in code:
            pytest.importorskip(toolbox)
    check_config(code, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    'code',
    [
        code
        for page, base in (('README.md', 'ResNet'), (COMPLETE, 'C2D'))
        for _, code in python_blocks(page)
        if is_config(code) and f"base='{base}'" in code
    ],
    ids=['image', 'video'],
)
def test_a_config_starts_from_its_pretrained_file(code, tmp_path, torch_home):
    if 'mmaction::' in code:
        pytest.importorskip('mmaction')
    (tmp_path / 'config.py').write_text(code)
    cfg = load_config(str(tmp_path / 'config.py'))
    (file,) = [hub.write(torch_home, name) for name in hub.names_in(cfg.model)]
    model = build_model(cfg)
    model.init_weights()
    hub.assert_landed(model.backbone, file)


def test_every_config_of_inserting_names_its_blocks():
    for line, code in python_blocks(COMPLETE):
        assert is_config(code) and '# -> ' in code, line


def test_the_code_of_models_that_are_built_runs(capsys):
    (code,) = re.findall(
        r'^```py\n(.*?)^```', (ROOT / COMPLETE).read_text(), re.M | re.S
    )
    exec(code, {})
    (printed,) = re.findall(r'# (\[.*\])', code)
    assert capsys.readouterr().out.strip() == printed


def test_the_blocks_of_extending_run_and_pass_their_tests(tmp_path, monkeypatch):
    for registry in MODELS, NL_MODELS:  # other tests know nothing of them
        monkeypatch.setattr(registry, '_module_dict', registry.module_dict.copy())
    monkeypatch.delitem(sys.modules, 'my_blocks', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    codes = [code for _, code in python_blocks(EXTENDING)]
    (tmp_path / 'my_blocks.py').write_text(
        '\n\n'.join(code for code in codes if not is_config(code))
    )
    my_blocks = importlib.import_module('my_blocks')
    tests = [v for k, v in vars(my_blocks).items() if k.startswith('test_')]
    assert len(tests) == 3
    for test in tests:
        test()
    for code in filter(is_config, codes):
        check_config(code, tmp_path)


# Links --------------------------------------------------------------------


def without_code(text):
    """A page without its fenced blocks and inline code."""
    return re.sub(r'`[^`\n]*`', '', FENCED.sub('', text))


def links(text):
    """Their targets; code in the words of a link leaves '[]'."""
    return re.findall(r'\]\(([^)\s]+)\)', without_code(text))


def anchors(page):
    """The names that GitHub gives to the headings of a page."""
    found = []
    text = FENCED.sub('', page.read_text())
    for heading in re.findall(r'^#+ (.+)$', text, re.M):
        heading = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading)
        slug = re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        number = found.count(slug)
        found += [slug, f'{slug}-{number}'] if number else [slug]
    return found


def test_anchors_of_chinese_headings(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# 推理\n# 与上游（mmcv 2.1）：内存、时间\n# 推理\n')
    assert anchors(page) == ['推理', '与上游mmcv-21内存时间', '推理', '推理-1']


@pytest.mark.parametrize('page', [*PAGES, CHINESE], ids=name)
def test_links_lead_somewhere(page):
    for target in links(page.read_text()):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme in ('http', 'https'), target
            assert re.fullmatch(r'[\w-]+(\.[\w-]+)+', parts.netloc), target
            continue
        file = (page.parent / parts.path).resolve() if parts.path else page
        assert file.exists() and file.is_relative_to(ROOT), target
        if parts.fragment:
            assert parts.fragment in anchors(file), target


def test_the_index_lists_every_page():
    index = (ROOT / 'docs' / 'README.md').read_text()
    for kind in 'md', 'ipynb':
        for page in (ROOT / 'docs').glob(f'*.{kind}'):
            assert page.name == 'README.md' or f']({page.name})' in index
    assert '](docs/README.md)' in (ROOT / 'README.md').read_text()


# Translation --------------------------------------------------------------


def figures(text):
    """The numbers in each cell of each row of the tables of a page."""
    rows = re.findall(r'^\|.*\|$', FENCED.sub('', text), re.M)
    return [
        [re.findall(r'[+-]?\d+(?:\.\d+)?', cell) for cell in row.split('|')]
        for row in rows
    ]


def levels(text):
    """The levels of the headings of a page."""
    return re.findall(r'^#+ ', FENCED.sub('', text), re.M)


def other_pages(text):
    """The targets of the links of a page, without the other README."""
    return sorted(
        target for target in links(text) if target not in ('README.md', CHINESE.name)
    )


@pytest.mark.parametrize(
    'part',
    [FENCED.findall, figures, levels, other_pages],
    ids=['code', 'figures', 'sections', 'links'],
)
def test_the_chinese_readme_has_the_same(part):
    english = part((ROOT / 'README.md').read_text())
    assert english
    assert part(CHINESE.read_text()) == english


def test_the_readmes_lead_to_each_other():
    assert CHINESE.name in links((ROOT / 'README.md').read_text())
    assert 'README.md' in links(CHINESE.read_text())
