"""Table, CSV and plot of measurements."""

import csv
from pathlib import Path

import cv2

from nl_plugins.analysis.benchmark.measure import Case, Result
from nl_plugins.analysis.benchmark.output import plot, to_tables, write_records
from nl_plugins.analysis.tables import to_markdown


def results():
    """Three sizes: upstream grows with N^2, ours with N."""
    found = {}
    for n in (10, 20, 40):
        found[Case('dot_product', (n, n), 16)] = dict(
            upstream=Result(1e-6 * n**4, 1e4 * n**4),
            nl_plugins=Result(2e-4 * n**2, 2e6 * n**2),
            matmul=Result(1e-4 * n**2, 0),
        )
    return found


def unpadded(*tables):
    return [' '.join(line.split()) for line in to_markdown(*tables).splitlines()]


def test_table_of_ratios():
    lines = unpadded(*to_tables(results()))
    assert lines[6] == (
        '| dot product | 16 x 40 x 40 | fp32 | training | 2.560 s | 0.320 s | '
        '8.0x | 0.160 s | 2.00x | 24414 MB | 3052 MB | 8.0x |'
    )
    assert '| dot product, fp32, training | upstream | 2.00 | 2.00 |' in lines
    assert '| dot product, fp32, training | nl_plugins | 1.00 | 1.00 |' in (lines)


def test_failures_and_notes_are_told():
    case = Case('concatenation', (4, 4), 8)
    (table,) = to_tables(
        {
            case: dict(
                upstream=Result(1.0, 2**20, note='written out'),
                nl_plugins=Result(error='out of memory'),
                matmul=Result(1.0, 0),
            )
        }
    )
    table = '\n'.join(unpadded(table))
    assert '| 1.000 s* | fails | | 1.000 s | | 1 MB | fails | |' in table
    assert 'fails: nl_plugins, concatenation 8 x 4 x 4: out of mem' in table
    assert '\\* upstream, concatenation 8 x 4 x 4: written out' in table


def test_csv_has_a_row_for_each_implementation(tmp_path):
    write_records(results(), tmp_path / 'out.csv')
    rows = list(csv.DictReader(Path(tmp_path, 'out.csv').open()))
    assert len(rows) == 9
    assert rows[4] == dict(
        block='dot_product',
        size='20x20',
        channels='16',
        train='training',
        device='cpu',
        dtype='fp32',
        batch='1',
        sub_sample='False',
        positions='400',
        implementation='nl_plugins',
        seconds='0.08',
        bytes='800000000.0',
        error='',
        note='',
    )


def test_plot_is_a_picture(tmp_path):
    plot(results(), tmp_path / 'out.png')
    image = cv2.imread(str(tmp_path / 'out.png'))
    assert image.shape[0] > 600 and image.std() > 10
