"""Tables: plotted in a terminal, Markdown or HTML elsewhere; and CSV files."""

import csv
import html
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console
from rich.markup import escape


@dataclass(frozen=True)
class Table:
    """Rows of text under a head, with a title above and a remark below.

    Warnings stand between the title and the rows.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    remark: str = ''
    warnings: Sequence[str] = ()

    def to_markdown(self) -> str:
        """Format the table as Markdown that is also readable as it is."""
        parts = [f'### {self.title}'] * bool(self.title)
        parts += [f'**Warning:** {warning}' for warning in self.warnings]
        parts.append(markdown_table(self.head, self.rows))
        return '\n\n'.join(parts + [self.remark] * bool(self.remark))

    def to_html(self) -> str:
        """Format the table as HTML, in the style of the page around it."""
        parts = [f'<h3>{html.escape(self.title)}</h3>'] * bool(self.title)
        parts += [
            f'<p><strong>Warning:</strong> {html.escape(warning)}</p>'
            for warning in self.warnings
        ]
        # notebooks align cells to the right
        rows = [
            ''.join(
                f'<{tag} style="text-align: left">{html.escape(cell)}</{tag}>'
                for cell in row
            )
            for tag, row in (('th', self.head), *(('td', row) for row in self.rows))
        ]
        parts.append(f'<table>{"".join(f"<tr>{row}</tr>" for row in rows)}</table>')
        parts += [f'<p><small>{html.escape(self.remark)}</small></p>'] * bool(
            self.remark
        )
        return '\n'.join(parts)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format rows under a head as a Markdown table.

    Args:
        head (Sequence[str]): Names of the columns.
        rows (Iterable[Sequence[str]]): As many cells each.

    Returns:
        str: The table, its columns padded to one width.
    """
    cells = [[cell.replace('|', r'\|') for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        f'| {" | ".join(cell.ljust(width) for cell, width in zip(row, widths))} |'
        for row in cells
    ]
    lines.insert(1, f'|{"|".join((width + 2) * "-" for width in widths)}|')
    return '\n'.join(lines)


def to_markdown(*parts: Table | str) -> str:
    """Format tables and paragraphs as Markdown."""
    texts = [part if isinstance(part, str) else part.to_markdown() for part in parts]
    return '\n\n'.join(texts) + '\n'


def to_html(*parts: Table | str) -> str:
    """Format tables and headings or paragraphs of Markdown for a notebook."""
    return '\n'.join(
        part.to_html() if isinstance(part, Table) else _paragraph(part)
        for part in parts
    )


def _paragraph(text: str) -> str:
    """A paragraph, or a heading that begins with ``##``."""
    words = text.removeprefix('## ')
    tag = 'p' if words == text else 'h2'
    return f'<{tag}>{html.escape(words)}</{tag}>'


def show(*parts: Table | str) -> None:
    """Print tables and paragraphs: plotted in a terminal, else as Markdown."""
    # rich also takes FORCE_COLOR, which Jupyter sets, for a terminal
    if not sys.stdout.isatty():
        print(to_markdown(*parts))
        return
    console = Console()
    for part in parts:
        if isinstance(part, str):
            console.print(escape(part), highlight=False, soft_wrap=True)
            continue
        for warning in part.warnings:
            console.print(f'[bold]Warning:[/bold] {escape(warning)}', highlight=False)
        table = rich.table.Table(title=escape(part.title), caption=escape(part.remark))
        for name in part.head:
            table.add_column(escape(name), overflow='fold')
        for row in part.rows:
            table.add_row(*map(escape, row))
        console.print(table)


def write_csv(
    path: str | Path, head: Sequence[str], records: Iterable[dict[str, Any]]
) -> None:
    """Write records as the rows of a CSV file.

    Args:
        path (str | Path): File to write.
        head (Sequence[str]): Names of the columns.
        records (Iterable[dict[str, Any]]): Values by the name of their
            column; what is missing is left empty.
    """
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, head)
        writer.writeheader()
        writer.writerows(records)
