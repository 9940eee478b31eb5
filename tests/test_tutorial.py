"""The tutorial runs from its first to its last cell."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
#: What makes it short.
SHORT = {
    'num_train=400, num_val=40': 'num_train=8, num_val=4',
    '200': '4',  # iterations
    'val_interval=50': 'val_interval=4',
    'interval=20)': 'interval=2)',
    'repeats=3': 'repeats=0',
}


def test_every_cell_runs(tmp_path):
    pytest.importorskip('mmseg')
    for name in 'configs', 'tools':
        (tmp_path / name).symlink_to(ROOT / name)
    notebook = nbformat.read(ROOT / 'docs/tutorial.ipynb', as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    for long, short in SHORT.items():
        assert any(long in cell.source for cell in cells), long
        for cell in cells:
            cell.source = cell.source.replace(long, short)
    # It fails with the first cell or command that fails.
    NotebookClient(
        notebook, timeout=300, resources=dict(metadata=dict(path=tmp_path))
    ).execute()

    def data(cell):
        (output,) = (out for out in cell.outputs if 'data' in out)
        return output.data

    first, second, report, attention = cells[-4:]
    for training in first, second:
        log = ''.join(output.text for output in training.outputs)
        assert 'Iter(train) [4/4]' in log and 'mIoU' in log
    assert '| fcn-nl | NonLocal2d' in data(report)['text/markdown']
    assert 'gain in mIoU' in data(report)['text/html']
    assert (tmp_path / 'work_dirs/tutorial/comparison/comparison.html').exists()
    assert 'image/png' in data(attention)


def test_it_is_committed_without_outputs():
    notebook = nbformat.read(ROOT / 'docs/tutorial.ipynb', as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get('outputs') for cell in notebook.cells)
