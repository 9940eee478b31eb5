"""The comparison as one call, which a notebook displays."""

import re
import shlex
from pathlib import Path

import pytest
from analysis.comparison.recorded import train_records, write_run

import nl_plugins
from nl_plugins.analysis.tables import Table
from nl_plugins.errors import OptionError

DEMO = Path(__file__).parents[3] / 'configs/demo'
FCN, DNL = (str(DEMO / f'{name}_r18-2stages_demo.py') for name in ('fcn', 'dnl'))


@pytest.fixture
def report(tmp_path):
    """A model with a run, and a run of another config."""
    write_run(tmp_path / 'run', train_records((1, 2), 0.2), 'dnl_r18-2stages_demo')
    write_run(tmp_path / 'other', train_records((1, 2), 0.2), 'stranger')
    return nl_plugins.compare(
        DNL, FCN, work_dirs=tmp_path, shape=[32, 64], repeats=0, device='cpu'
    )


def test_one_path_is_as_good_as_a_list(report, tmp_path):
    (group,) = report.comparison.groups
    assert [model.config for model in group.models] == [FCN, DNL]
    assert report.comparison.searched == [str(tmp_path)]
    assert shlex.split(report.command) == [
        *('python', 'tools/compare.py', DNL, '--baseline', FCN),
        *('--work-dirs', str(tmp_path), '--shape', '32x64', '--batch-size', '2'),
        *('--repeats', '0', '--device', 'cpu'),
    ]


def test_it_displays_the_tables(report, tmp_path):
    text = str(report)
    assert text == repr(report) == report._repr_markdown_()
    for part in '## fcn_r18-2stages_demo\n', '### Size\n', '### Trained\n', '32 x 64':
        assert part in text
    left_out = f'left out, of another config: {tmp_path / "other"} (stranger)'
    assert text.endswith(f'{left_out}\n')

    page = report._repr_html_()
    assert '<h2>fcn_r18-2stages_demo</h2>' in page and '<h3>Size</h3>' in page
    assert page.count('<table>') == 2 and f'<p>{left_out}</p>' in page
    # the cells are those of Markdown, and none is markup
    cells = re.findall(r'<t[dh][^>]*>(.*?)</t[dh]>', page)
    assert 'dnl_r18-2stages_demo' in cells and '32 x 64' in cells
    assert not [cell for cell in cells if '<' in cell]


def test_cells_and_warnings_are_escaped():
    table = Table('a<b', ['<i>'], [['1 < 2'], ['x|y']], 'p & q', ['<script>'])
    assert table.to_html().replace(' style="text-align: left"', '') == (
        '<h3>a&lt;b</h3>\n<p><strong>Warning:</strong> &lt;script&gt;</p>\n'
        '<table><tr><th>&lt;i&gt;</th></tr><tr><td>1 &lt; 2</td></tr>'
        '<tr><td>x|y</td></tr></table>\n<p><small>p &amp; q</small></p>'
    )


def test_the_files_are_those_of_the_tool(report, tmp_path):
    folder = tmp_path / 'new/folder'
    report.write(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        'comparison.html',
        'comparison.md',
        'models.csv',
        'runs.csv',
    ]
    assert (folder / 'comparison.md').read_text() == str(report)
    assert '<code>python tools/compare.py' in (folder / 'comparison.html').read_text()
    with pytest.raises(OptionError, match='cannot be made: File exists'):
        report.write(folder / 'models.csv')


@pytest.mark.parametrize('wrong', [dict(batch_size=0), dict(repeats=-1)])
def test_a_number_that_is_too_small(wrong):
    with pytest.raises(OptionError, match='at least 1 and repeats at least 0'):
        nl_plugins.compare([DNL], **wrong)
