"""An extension of griffe: the roles of docstrings as Markdown."""

import re
import textwrap

import griffe

DIRECTIVE = re.compile(
    r'^( *)\.\. (math|code-block):: ?(.*)\n((?:\1 +\S.*\n|\n)*)', re.M
)


def to_markdown(text):
    """Convert what docstrings of this package use of reStructuredText."""

    def directive(match):
        indent, name, argument, body = match.groups()
        body = textwrap.dedent(body).strip('\n')
        if name == 'math':
            body = ' '.join(f'{argument} {body}'.split())
            return f'{indent}$$ {body} $$\n\n'
        block = f'```{argument}\n{body}\n```\n\n'
        return textwrap.indent(block, indent)

    text = DIRECTIVE.sub(directive, text + '\n')
    text = re.sub(r':math:`([^`]+)`', r'$\1$', text)
    text = re.sub(r':\w+:`\.?([^`]+)`', lambda m: f'`{"".join(m[1].split())}`', text)
    return re.sub(r'(?<!`)`([^`<]+?)\s*<([^`>]+)>`_', r'[\1](\2)', text)


class Roles(griffe.Extension):
    """Converts docstrings, and leaves private parameters out of signatures."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value).rstrip()
        if obj.is_function:
            for parameter in list(obj.parameters):
                if parameter.name.startswith('_'):
                    del obj.parameters[parameter.name]
