"""The comparison with upstream."""
import math

from nl_plugins.benchmark import Case, Result, compare, to_markdown


def test_the_memory_of_upstreams_map_is_seen():
    case = Case('embedded_gaussian', (64, 64), 16, False, 'cpu')
    results = compare(case, repeats=1)
    the_map = 4 * (64 * 64)**2
    assert results['upstream'].bytes > .9 * the_map
    assert results['nl_plugins'].bytes < .5 * the_map
    assert all(result.seconds > 0 for result in results.values())


def test_what_upstream_cannot_do_is_said():
    case = Case('concatenation', (4, 4), 8, True, 'cpu')
    results = compare(case, repeats=1)
    assert 'inplace' in results['upstream'].error
    assert math.isnan(results['upstream'].seconds)
    assert not results['nl_plugins'].error
    table = to_markdown({case: results})
    assert 'concatenation: one of the variables needed' in table


def test_a_process_that_dies_is_said():
    # An input that no machine can hold.
    case = Case('gaussian', (10**7, 10**7), 8, True, 'cpu')
    results = compare(case, repeats=1)
    assert all('killed' in result.error for result in results.values())


def test_table_of_ratios():
    case = Case('dot_product', (4, 8), 16, True, 'cpu')
    table = to_markdown({
        case:
        dict(
            upstream=Result(.5, 300 * 2**20), nl_plugins=Result(
                .2, 100 * 2**20))
    })
    assert table.splitlines()[2] == (
        '| dot product | 16 x 4 x 8 | training | 0.500 s | 0.200 s | 2.5x | '
        '300 MB | 100 MB | 3.0x |')
