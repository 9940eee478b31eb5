"""Tables and files of comparisons whose figures are known."""

import csv
import re
from dataclasses import replace

import pytest
from analysis.comparison.recorded import train_records, write_run

from nl_plugins.analysis.baselines import PublishedResult
from nl_plugins.analysis.comparison import page, tables
from nl_plugins.analysis.comparison.costs import Cost, Setting
from nl_plugins.analysis.comparison.models import Comparison, Group, Model
from nl_plugins.analysis.comparison.runs import find_runs, group_runs
from nl_plugins.analysis.complexity import Complexity
from nl_plugins.analysis.tables import to_markdown


@pytest.fixture
def comparison(tmp_path):
    """A baseline and a block with three runs each, a model that fails."""
    for name, ap, seed, epochs in (
        ('base', 0.01, -1, 1),
        ('base', 0.20, 0, 2),
        ('base', 0.22, 1, 2),
        ('block', 0.25, 0, 2),
        ('block', 0.27, 1, 2),
        ('block', 0.10, 2, 1),
    ):
        write_run(
            tmp_path / f'{name}{seed}',
            train_records(range(1, epochs + 1), ap),
            name,
            seed=seed,
        )
    runs = find_runs([tmp_path])
    groups = {
        name: group_runs(r for r in runs if r.name == name)
        for name in ('base', 'block')
    }

    def costs(scale):
        return dict(
            inference=Cost((0.3 * scale, 0.1 * scale, 0.2 * scale), scale * 2**20),
            training=Cost((2.0 * scale,), scale * 2**30),
        )

    failed = Cost(error='out of memory')
    models = [
        Model(
            'mmdet::x/base.py',
            '',
            Complexity(10**7, 10**10, (64, 96)),
            '',
            costs(1),
            groups['base'],
        ),
        Model(
            'configs/block.py',
            'NonLocal2d before layer3.-1',
            Complexity(12 * 10**6, 11 * 10**9, (64, 96)),
            '',
            costs(1.5),
            groups['block'],
        ),
        Model(
            'configs/broken.py',
            '',
            None,
            'no kernel',
            dict(inference=failed, training=failed),
        ),
    ]
    published = [
        PublishedResult('Object Detection', 'COCO', {'box AP': 38.2}, 'base', '')
    ]
    return Comparison(
        [Group(models, published)],
        Setting(),
        [str(tmp_path)],
        [replace(runs[0], name='stranger')],
    )


def cells(comparison, title):
    (table,) = (
        t for t in tables.tables(comparison, comparison.groups[0]) if t.title == title
    )
    return [dict(zip(table.head, row)) for row in table.rows]


def test_sizes_with_their_ratios(comparison):
    base, block, broken = cells(comparison, 'Size')
    assert base['parameters'] == '10.00 M (1.00x)'
    assert block == dict(
        model='block',
        blocks='NonLocal2d before layer3.-1',
        input='64 x 96',
        parameters='12.00 M (1.20x)',
        FLOPs='11 G (1.10x)',
    )
    assert broken['input'] == 'fails: no kernel'


def test_runs_of_another_model_than_the_config_are_said(comparison):
    group = comparison.groups[0]
    block = group.models[1]
    deeper = [
        replace(
            run, settings=run.settings | {'model.backbone.depth': 101}, model={1: 1}
        )
        for run in block.runs[0]
    ]
    settings = block.runs[0][0].settings | {'model.backbone.depth': 50}
    group.models[1] = replace(block, runs=[deeper], settings=settings)
    table, *_ = tables.tables(comparison, group)
    assert table.remark.endswith(
        ' Here and below block is the model of its runs: model.backbone.depth=101.'
    )


AP = 'coco/bbox_mAP'


def test_gains_are_over_the_most_similar_model_of_the_baseline(comparison):
    group = comparison.groups[0]
    base, block, _ = group.models

    def of_depth(model, depth, less=0.0):
        """The complete runs, with another depth and less AP."""
        (runs,) = (runs for runs in model.runs if not runs[0].state)
        runs = [
            replace(
                run,
                settings=run.settings | {'model.backbone.depth': depth},
                val=[r | {AP: r[AP] - less} if AP in r else r for r in run.val],
            )
            for run in runs
        ]
        return replace(model, label=f'{model.name} ({depth})', runs=[runs])

    group.models[:] = [
        of_depth(base, 50),
        of_depth(base, 101, less=0.1),
        of_depth(block, 50),
        of_depth(block, 101),
    ]
    rows = cells(comparison, 'Trained')
    gains = {
        row['model']: row['gain in box AP'] for row in rows if row['gain in box AP']
    }
    assert list(gains) == ['block (50)', 'block (101)']
    assert gains['block (50)'].startswith('+10.0')
    assert gains['block (101)'].startswith('+20.0')
    assert not any('(1)' in gain for gain in gains.values())  # no warning


def test_costs_with_median_spread_and_ratio(comparison):
    base, block, broken = cells(comparison, 'Time and memory')
    assert base['inference time'] == '200 ms (1.00x)'
    assert block['inference time'] == '300 ms (1.50x)'
    assert block['inference spread'] == '150 ms to 450 ms'
    assert block['training time'] == '3 s (1.50x)'
    assert block['training memory'] == '1536 MB (1.50x)'
    assert broken['training time'] == 'fails: out of memory'


def test_results_with_gain_and_unfinished_runs(comparison):
    stopped, base, block, unfinished, broken = cells(comparison, 'Trained')
    assert (stopped['model'], stopped['remark']) == ('base', '1 of 2 epochs')
    assert base['box AP, last'] == '42.0 ± 2.8'
    assert base['gain in box AP'] == ''
    assert (
        block['runs'],
        block['box AP, last'],
        block['gain in box AP'],
        block['box AP, best'],
        block['s/iteration'],
        block['training'],
    ) == (
        '2',
        '52.0 ± 2.8',
        '+10.0 (95 %: +10.0 to +10.0)',
        '52.0 ± 2.8',
        '0.500 ± 0.000',
        '0.1 min',
    )
    assert block['length'] == '8 iterations, 2 epochs'
    assert (unfinished['runs'], unfinished['box AP, last'], unfinished['remark']) == (
        '1',
        '10.0',
        '1 of 2 epochs',
    )
    assert unfinished['gain in box AP'] == ''
    assert (broken['runs'], broken['box AP, last']) == ('0', '')
    assert broken['remark'].startswith('no run below')


def test_an_unfair_gain_is_marked_and_said_above_the_table(comparison):
    first = comparison.groups[0].models[1]
    longer = [
        replace(run, settings=run.settings | {'train_cfg.max_epochs': 3})
        for run in first.runs[0]
    ]
    model = replace(first, runs=[longer])
    group = replace(
        comparison.groups[0], models=[comparison.groups[0].models[0], model]
    )
    table = tables.tables(comparison, group)[2]
    (warning,) = table.warnings
    assert warning == (
        'the gain of block (1) is not of its blocks alone: length: '
        'train_cfg.max_epochs is 3, 2 for the baseline'
    )
    gain = table.rows[2][table.head.index('gain in box AP')]
    assert gain.endswith('to +10.0) (1)')
    assert f'**Warning:** {warning}' in table.to_markdown()


def test_remarks_are_differences_against_the_config_file(comparison):
    # also where no run has its settings
    first = comparison.groups[0].models[1]
    settings = first.runs[0][0].settings
    comparison.groups[0].models[1] = replace(
        first, settings=settings | {'optim_wrapper.optimizer.lr': 0.3}
    )
    _, _, block, unfinished, _ = cells(comparison, 'Trained')
    assert block['remark'] == 'optim_wrapper.optimizer.lr=0.1'
    assert unfinished['remark'] == ('1 of 2 epochs; optim_wrapper.optimizer.lr=0.1')
    comparison.groups[0].models[1] = replace(first, settings=settings)
    assert cells(comparison, 'Trained')[2]['remark'] == ''


def test_what_upstream_published(comparison):
    (row,) = cells(comparison, 'Published by upstream for the baseline')
    assert (row['metric'], row['value']) == ('box AP', '38.2')


def test_published_figures_of_another_training_are_grey(comparison, tmp_path):
    group = comparison.groups[0]
    settings = group.models[0].runs[1][0].settings
    for epochs, dim in ((2, False), (12, True)):
        group.models[0] = replace(
            group.models[0], settings=settings | {'train_cfg.max_epochs': epochs}
        )
        *_, published = tables.tables(comparison, group)
        assert list(published.warnings) == dim * [
            'these figures are of another training than the runs above: length: '
            'train_cfg.max_epochs is 2, 12 for the config'
        ]
        page.write_page(comparison, tmp_path / 'page.html')
        assert ('class="dim"' in (tmp_path / 'page.html').read_text()) == dim


def test_markdown_holds_every_table(comparison):
    broken = comparison.groups[0].models[2]
    comparison.groups[0].models[2] = replace(broken, error='(3 | 4)')
    text = to_markdown(*tables.tables(comparison, comparison.groups[0]))
    assert text.count('### ') == 4
    # every row of a table has as many cells as its head
    for block in re.findall(r'(?:^\|.*\n)+', text, re.M):
        assert (
            len({line.replace(r'\|', '').count('|') for line in block.splitlines()})
            == 1
        )


def test_csv_holds_the_figures(comparison, tmp_path):
    tables.write_records(comparison, tmp_path)
    with open(tmp_path / 'models.csv') as file:
        base, block, broken = csv.DictReader(file)
    assert float(block['inference_seconds']) == pytest.approx(0.3)
    assert float(block['inference_seconds_min']) == pytest.approx(0.15)
    assert int(base['flops']) == 10**10
    assert broken['training_error'] == 'out of memory'
    assert broken['parameters'] == broken['training_seconds'] == ''
    with open(tmp_path / 'runs.csv') as file:
        rows = list(csv.DictReader(file))
    assert [(r['config'], r['seed'], r['state'], r['last']) for r in rows][-1] == (
        'configs/block.py',
        '2',
        '1 of 2 epochs',
        '10.0',
    )
    assert len(rows) == 6


def test_the_page_needs_nothing_else(comparison, tmp_path):
    picture = tmp_path / 'block0' / '20250101_000000/vis_data/vis_image'
    picture.mkdir()
    import cv2
    import numpy as np

    (picture / 'broken_3.png').write_bytes(b'no picture')
    (picture / 'empty_3.png').touch()
    (picture / 'folder_3.png').mkdir()
    for step in (9, 12):
        cv2.imwrite(
            str(picture / f'attention_{step}.png'), np.full((9, 16, 3), step, np.uint8)
        )
    page.write_page(comparison, tmp_path / 'page.html')
    text = (tmp_path / 'page.html').read_text()
    sources = re.findall(r'(?:src|href)="([^#].{4})', text)
    assert set(sources) == {'data:'}
    # names of SVG's grammar are no addresses to load
    assert not re.search(r'(?<!xmlns=")(?<!xmlns:xlink=")https?://', text)
    assert '@import' not in text
    # the later picture and the icon; the metric and two losses are SVG
    assert len(sources) == 1 + 1
    assert text.count('<svg') == text.count('</svg>') == 3
    # each of 12 + 2 evaluations and lines of runs says its value or model
    assert '<title>base: 20 at 4</title>' in text
    assert text.count('<title>block</title>') == 3 * 3
    assert 'attention_12' in text and 'attention_9' not in text
    assert 'stranger' in text
    for table in tables.tables(comparison, comparison.groups[0]):
        for row in table.rows:
            assert all(page.jinja2.filters.escape(c) in text for c in row)


def test_a_curve_for_each_run(comparison, monkeypatch):
    drawn = []
    monkeypatch.setattr(page, '_plot', lambda *args: drawn.append(args))
    titles = [title for title, _ in page._curves(comparison.groups[0])]
    assert titles == ['box AP', 'loss', 'loss_cls']
    lines, style, names = drawn[0]
    assert (style, names) == ('o-', ['base', 'block', 'broken'])
    assert lines[1] == (0, [(4, 20.0), (8, 40.0)])
    assert [number for number, _ in lines] == [0, 0, 0, 1, 1, 1]


def test_numbers_are_sorted_by_their_value_and_gains_stand_out(comparison, tmp_path):
    page.write_page(comparison, tmp_path / 'page.html')
    text = (tmp_path / 'page.html').read_text()
    cell = re.search(r'<td data-head="gain in box AP"([^>]*)>[+]10.0', text)[1]
    assert 'data-number="10.0"' in cell and 'class="number gain"' in cell
    assert re.search(r'<td data-head="parameters" data-number="12.0"', text)
    cells = '-0.5 (x)', '96 x 192', '1.2.3', 'none', '950 ms (1.00x)', '2 h 05 min'
    assert [page._number(cell) for cell in cells] == [
        *(-0.5, 96, 1.2, None),
        pytest.approx(0.95),
        120,
    ]


def test_times_are_readable():
    assert [tables._seconds(value) for value in (0.00512, 0.9999, 1.234, 1234.5)] == [
        '5.12 ms',
        '1 s',
        '1.23 s',
        '1234 s',
    ]
