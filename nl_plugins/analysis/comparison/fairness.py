"""Whether a gain over a baseline comes from the blocks: what else differs."""

import re

from .runs import Run

#: What a setting decides, by its dotted key. Rates and decay of single
#: parameters (paramwise_cfg) belong to the blocks.
_KINDS = {
    'length': r'train_cfg\.max_(epochs|iters)',
    'batch size': r'train_dataloader\.batch_size|optim_wrapper\.accumulative_counts',
    'training data': r'train_dataloader\.(dataset|sampler|batch_sampler)\b.*',
    'schedule': r'(param_scheduler|optim_wrapper\.(optimizer|clip_grad))\b.*'
    r'|optim_wrapper\.(type|dtype)',
    'pretrained weights': r'load_from|model\..*(checkpoint|pretrained)',
    'model': r'model\.(?!.*\b(type|base|blocks|block|plugins)\b).*',
    'evaluation': r'(val|test)_(dataloader\.dataset|evaluator)\b.*',
}


def unfair_differences(
    run: Run, baseline: Run, other: str = 'baseline', most: int = 3
) -> list[str]:
    """List the differences of two trainings that are not those of blocks.

    Args:
        run (Run): A training with a block.
        baseline (Run): A training of the baseline.
        other (str): What to call that. Defaults to ``'baseline'``.
        most (int): How many to list of one kind. Defaults to 3.

    Returns:
        list[str]: Such as ``'length: train_cfg.max_epochs is 24, 12 for the
        baseline'``. Settings of the model are compared where both have them.
    """
    if not run.settings or not baseline.settings:
        return []
    found: dict[str, list[str]] = {}
    for key in {**baseline.settings, **run.settings}:
        kind = next((k for k, keys in _KINDS.items() if re.fullmatch(keys, key)), None)
        one, two = (r.settings.get(key) for r in (run, baseline))
        # _scope_ says through which toolbox a base config was loaded
        if kind is None or one == two or key.endswith('_scope_'):
            continue
        if kind == 'model' and (
            key not in run.settings or key not in baseline.settings
        ):
            continue
        found.setdefault(kind, []).append(f'{key} is {one!r}, {two!r} for the {other}')
    for key in {**baseline.environment, **run.environment}:
        one, two = (r.environment.get(key) for r in (run, baseline))
        if None not in (one, two) and one != two:
            kind = 'batch size' if key == 'GPU number' else 'versions'
            found.setdefault(kind, []).append(
                f'{key} is {one!r}, {two!r} for the {other}'
            )
    return [
        f'{kind}: {", ".join(texts[:most])}{", ..." * (len(texts) > most)}'
        for kind, texts in found.items()
    ]
