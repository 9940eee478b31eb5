"""What the comparison with upstream measures."""

import math
import os
import signal
from dataclasses import replace

import pytest
import torch

from nl_plugins.analysis import measuring
from nl_plugins.analysis.benchmark import measure
from nl_plugins.analysis.benchmark.measure import Case, compare, multiplications
from nl_plugins.analysis.measuring import MeasurementError, in_a_process

pytestmark = pytest.mark.slow


def test_the_memory_of_upstreams_map_is_seen():
    case = Case('embedded_gaussian', (64, 64), 16, train=False)
    results = compare(case, repeats=1)
    the_map = 4 * (64 * 64) ** 2
    assert results['upstream'].bytes > 0.9 * the_map
    assert results['nl_plugins'].bytes < 0.5 * the_map
    assert all(result.seconds > 0 for result in results.values())


@pytest.fixture
def here(monkeypatch):
    """Measure in this process: an import of torch takes seconds."""
    call = measuring._call
    monkeypatch.setattr(measure, 'alone', lambda device, f, *args: call(f, args))


def test_the_formula_runs_where_upstream_cannot(here):
    case = Case('concatenation', (4, 5, 6), 8)
    results = compare(case, repeats=1)
    assert 'inplace' in results['upstream'].note
    assert results['upstream'].seconds > 0
    assert not results['nl_plugins'].error


def test_what_upstream_does_not_have_is_said(here):
    results = compare(Case('disentangled', (16,), 8), repeats=1)
    assert 'in 2d only' in results['upstream'].error
    assert math.isnan(results['upstream'].seconds)
    assert results['nl_plugins'].seconds > 0


def test_too_large_an_input_is_said(here):
    case = Case('gaussian', (10**7, 10**7), 8)  # no machine can hold it
    results = compare(case, repeats=1)
    for name in 'upstream', 'nl_plugins':
        assert "can't allocate memory" in results[name].error


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise RuntimeError('\nno kernel\nand more')


def test_a_process_that_fails_is_said_in_one_line():
    with pytest.raises(MeasurementError, match='^no kernel$'):
        in_a_process(fail)


def test_a_process_that_dies_is_said():
    with pytest.raises(MeasurementError, match='killed'):
        in_a_process(die)


def test_half_precision_runs_with_autocast(here):
    case = Case('dot_product', (8, 8), 8, train=False, dtype='bf16')
    assert not any(r.error for r in compare(case, repeats=1).values())


def test_sub_sampling_makes_a_quarter_of_the_map(monkeypatch):
    monkeypatch.setattr(measure, 'IMPLEMENTATIONS', ('upstream',))
    case = Case('embedded_gaussian', (2, 48, 48), 8, train=False)
    full, pooled = (
        compare(replace(case, sub_sample=sub_sample), repeats=1)['upstream']
        for sub_sample in (False, True)
    )
    assert full.bytes > 2 * pooled.bytes > 0
    # with the projections alone left out, a quarter of what is computed
    projections = 4 * 2 * 48**2 * 8 * 4
    assert (
        4 * (multiplications(replace(case, sub_sample=True)) - projections)
        == multiplications(case) - projections
    )


@pytest.mark.parametrize(
    'block, expected',
    [
        ('embedded_gaussian', 4 * 100 * 8 * 4 + 2 * 100**2 * 4),
        ('gaussian', 2 * 100 * 8 * 4 + 100**2 * (8 + 4)),
        ('dot_product', 4 * 100 * 8 * 4 + 2 * 100 * 4 * 4),
        ('concatenation', 4 * 100 * 8 * 4),
    ],
)
def test_multiplications(block, expected):
    case = Case(block, (10, 10), 8, train=False)
    assert multiplications(case) == expected
    assert multiplications(replace(case, train=True, batch=2)) == 6 * expected


@pytest.mark.parametrize('device, expected', [('cuda', []), ('cuda:1', [1])])
def test_a_gpu_without_a_number_is_the_current_one(device, expected, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, 'set_device', lambda d: chosen.append(d.index))
    measuring.use_device(device)
    assert chosen == expected
