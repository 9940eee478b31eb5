"""The backends of an attention against each other."""

import pytest

from nl_plugins.analysis.benchmark import backends


@pytest.mark.slow
def test_every_backend_is_timed_and_one_is_chosen(monkeypatch):
    heads = ((8, 8, False), (8, 16, True))
    monkeypatch.setattr(backends, 'CPU_HEADS', heads)
    monkeypatch.setattr(backends, 'CPU_POSITIONS', (64,))
    phases = ['training', 'inference']
    softmax, concatenation = backends.compare_backends('cpu', ['fp32'], phases, 1)
    names = softmax.head[4:-1]
    assert sorted(names) == ['chunked', 'fused', 'naive', 'symmetric']
    sizes = [['8, 8', '64'], ['8, 16, query is key', '64']]
    assert [row[:1] + row[2:4] for row in softmax.rows] == [
        [phase, *size] for phase in phases for size in sizes
    ]
    for row in softmax.rows:
        assert row[-1] in names
        assert (row[4 + names.index('symmetric')] == '-') == ('is key' not in row[2])
        assert row[4 + names.index(row[-1])].endswith(' ms')
    assert [row[0] for row in concatenation.rows] == ['196', '768']
    assert all(row[2].endswith('x)') for row in concatenation.rows)
