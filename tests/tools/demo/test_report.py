"""Tables and curves of training runs, from records with known results."""

import json

import pytest
from demo import report
from PIL import Image


def write_records(work_dir, box_ap, mask_ap, times, stamp='20250101_000000'):
    """What the runner writes: four iterations and an evaluation, twice."""
    path = work_dir / stamp / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    lines = []
    for epoch in (1, 2):
        for i in (2, 4):
            step = 4 * (epoch - 1) + i
            lines.append(
                dict(
                    lr=0.1,
                    loss=2.0,
                    loss_cls=1 / step,
                    time=times[len(lines) % 3],
                    epoch=epoch,
                    iter=step,
                    step=step,
                )
            )
        lines.append(
            {
                'coco/bbox_mAP': box_ap * epoch / 2,
                'coco/segm_mAP': mask_ap * epoch / 2,
                'time': 99.0,
                'step': epoch,
            }
        )
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return report.read_run(work_dir)


@pytest.fixture
def models(tmp_path):
    times = [0.25, 0.75, 0.3]
    return [
        report.Model(
            'Mask R-CNN',
            1234567,
            [
                write_records(tmp_path / 'a0', 0.4, 0.5, times),
                write_records(tmp_path / 'a1', 0.5, 0.52, times),
            ],
        ),
        report.Model(
            '+ NonLocal2d',
            2345678,
            [
                write_records(tmp_path / 'b0', 0.8, 0.9, times),
                write_records(tmp_path / 'b1', 0.8, 0.92, times),
            ],
        ),
    ]


def test_table_holds_last_evaluations_mean_and_spread(models):
    lines = report.format_table(models).splitlines()
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert cells[0] == ['model', 'box AP', 'mask AP', 'parameters', 's/iter']
    assert set(''.join(cells[1])) == {'-'}
    # 45 +- 5 * sqrt(2), 51 +- sqrt(2); the median of .25 .75 .25 .75
    assert cells[2] == [
        'Mask R-CNN',
        '45.0 ± 7.1',
        '51.0 ± 1.4',
        '1,234,567',
        '0.500 ± 0.000',
    ]
    assert cells[3][:4] == ['+ NonLocal2d', '80.0 ± 0.0', '91.0 ± 1.4', '2,345,678']


def test_table_of_single_runs_has_no_spread(models):
    table = report.format_table(
        [model._replace(runs=model.runs[:1]) for model in models]
    )
    assert '±' not in table
    assert '40.0' in table and '50.0' in table


def test_gains_are_points_over_the_first_model(models):
    assert report.format_gains(models) == '+ NonLocal2d: box AP +35.0, mask AP +40.0'


def test_evaluations_know_the_iteration_they_followed(models):
    run = models[0].runs[0]
    assert [record['iteration'] for record in run.train] == [2, 4, 6, 8]
    assert [record['iteration'] for record in run.val] == [4, 8]


def test_the_latest_training_counts(tmp_path):
    write_records(tmp_path, 0.1, 0.1, [1, 1, 1], '20250101_000000')
    run = write_records(tmp_path, 0.2, 0.3, [1, 1, 1], '20250102_000000')
    assert run.val[-1]['coco/segm_mAP'] == 0.3


def test_missing_and_unfinished_trainings_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        report.read_run(tmp_path)
    path = tmp_path / '20250101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('{"loss": 1.0, "time": 1.0, "step": 10}\n')
    with pytest.raises(ValueError, match='1 training records and 0 eval'):
        report.read_run(tmp_path)


def test_curves_show_every_run(models, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        report.Figure, 'savefig', lambda self, path, **kwargs: figures.append(self)
    )
    report.draw_curves(models, tmp_path / 'curves.png')
    loss, ap = figures[0].axes
    assert len(loss.lines) == 4
    assert all(list(line.get_xdata()) == [2, 4, 6, 8] for line in loss.lines)
    assert [line.get_ydata()[-1] for line in ap.lines] == pytest.approx(
        [50, 52, 90, 92]
    )
    legend = [text.get_text() for text in ap.get_legend().get_texts()]
    assert legend == ['Mask R-CNN', '+ NonLocal2d']


def test_curves_are_written_as_png(models, tmp_path):
    report.draw_curves(models, tmp_path / 'curves.png')
    with Image.open(tmp_path / 'curves.png') as image:
        assert image.format == 'PNG'
