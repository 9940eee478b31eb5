"""Parameters and FLOPs of models, beside those of the first one."""

import argparse

from terminaltables import GithubFlavoredMarkdownTable

from nl_plugins.analysis.complexity import measure_complexity
from nl_plugins.engine import command_line, load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'configs',
        nargs='+',
        metavar='CONFIG',
        help='paths or names of configs; the first one is the baseline',
    )
    command_line.add_shape_argument(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    rows = [['config', 'input', 'parameters', 'ratio', 'FLOPs', 'ratio']]
    with command_line.clear_errors():
        first = None
        for name in args.configs:
            found = measure_complexity(load_config(name), args.shape)
            first = first or found
            rows.append(
                [
                    name.rpartition('/')[2].removesuffix('.py'),
                    ' x '.join(map(str, found.shape)),
                    f'{found.parameters / 1e6:.3g} M',
                    f'{found.parameters / first.parameters:.2f}x',
                    f'{found.flops / 1e9:.3g} G',
                    f'{found.flops / first.flops:.2f}x',
                ]
            )
    print(GithubFlavoredMarkdownTable(rows).table)


if __name__ == '__main__':
    main()
