"""The backends of an attention against each other."""

from nl_plugins.analysis.benchmark import backends


def test_every_backend_is_timed_and_one_is_chosen(monkeypatch):
    monkeypatch.setattr(backends, 'HEADS', ((8, 8), (8, 16)))
    monkeypatch.setattr(backends, 'POSITIONS', (64,))
    softmax, concatenation = backends.compare_backends('cpu', 1)
    names = softmax.head[2:-1]
    assert sorted(names) == ['chunked', 'fused', 'naive']
    assert [row[:2] for row in softmax.rows] == [['8, 8', '64'], ['8, 16', '64']]
    for *_, chosen in softmax.rows:
        assert chosen in names
    assert [row[0] for row in concatenation.rows] == ['196', '768']
    assert all(row[2].endswith('x)') for row in concatenation.rows)
