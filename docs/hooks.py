"""Hooks of mkdocs: notebooks, links to files of the repository, and formulas."""

import html
import json
import logging
import os
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

log = logging.getLogger('mkdocs.hooks')


def on_files(files, config):
    """Show notebooks as pages, their code without outputs."""
    for file in list(files):
        path = Path(file.src_uri)
        if path.suffix == '.ipynb':
            cells = json.loads(file.content_string)['cells']
            content = '\n\n'.join(map(_cell, cells))
            uri = path.with_suffix('.md').as_posix()
            files.append(File.generated(config, uri, content=content))


def _cell(cell):
    text = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown':
        return text
    language = 'shell' if text.startswith('%%bash') else 'python'
    return f'```{language}\n{text}\n```'


def on_page_markdown(markdown, page, config, files):
    """Lead links out of docs/ to the repository, to notebooks to their pages.

    Without a ``repo_url`` the target of a file is shown as a tooltip.
    """
    markdown = re.sub(r'(\]\([^):\s]+)\.ipynb\)', r'\1.md)', markdown)
    docs = Path(config.docs_dir)
    folder = (docs / page.file.src_uri).parent

    def link(match):
        file = Path(os.path.normpath(folder / match['path']))
        if file.is_relative_to(docs):
            return match[0]
        path = os.path.relpath(file, docs.parent)
        if not file.exists():
            log.warning(f'{page.file.src_uri} links to {path}, which does not exist')
        if config.repo_url:
            url = f'{config.repo_url.rstrip("/")}/blob/main/{path}{match["anchor"]}'
            return f'[{match["text"]}]({url})'
        return f'<abbr title="{path}">{match["text"]}</abbr>'

    pattern = r'\[(?P<text>[^]]+)\]\((?P<path>\.\./[^)#\s]+)(?P<anchor>(?:#[^)\s]*)?)\)'
    return re.sub(pattern, link, markdown)


def on_page_content(content, page, config, files):
    """Write formulas as MathML, which browsers show without a script."""

    def formula(match):
        display = 'block' if match['tag'] == 'div' else 'inline'
        return convert(html.unescape(match['latex']), display=display)

    pattern = (
        r'<(?P<tag>div|span) class="arithmatex">\\[\[(](?P<latex>.*?)\\[\])]</(?P=tag)>'
    )
    return re.sub(pattern, formula, content, flags=re.S)
