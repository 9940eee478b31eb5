"""How the blocks of a model will be trained: checked and logged at the start."""

import logging
from collections.abc import Iterator
from typing import NamedTuple

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from ..errors import OptionError
from ..insertion import blocks_of


class Rate(NamedTuple):
    """Learning rate, as a multiple of the base rate, and weight decay."""

    multiple: float
    weight_decay: float


class BlockTrainingHook(Hook):
    """Logs how each block is trained, and refuses a training that leaves one out.

    Some optimizer constructors only collect the parameters of layer types
    that they know, and ``gamma`` of a gate is in none of these. A key of
    ``paramwise_cfg`` that is meant for the backbone applies to the blocks in
    it too.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the optimizer and log the table."""
        model = runner.model
        rates = {id(p): rate for p, rate in _rates(runner)}
        if not any(id(p) in rates for p in model.parameters()):
            return  # the strategy of the runner optimizes copies
        blocks = blocks_of(model)
        missing = [
            f'{name}.{key}'
            for name, block in sorted(blocks.items())
            for key, parameter in block.named_parameters()
            if parameter.requires_grad and id(parameter) not in rates
        ]
        if missing:
            constructor = runner.cfg.get('optim_wrapper', {}).get(
                'constructor', 'DefaultOptimWrapperConstructor'
            )
            raise OptionError(
                'these parameters would not be trained, since the optimizer '
                f'does not have them: {", ".join(missing)}. Its constructor '
                f'{constructor!r} leaves them out. Use '
                '--cfg-options optim_wrapper.constructor='
                'DefaultOptimWrapperConstructor, or a block without them'
            )
        if not blocks:
            return
        rows: list[tuple[str, ...]] = [
            ('block', 'type', 'parameters', 'trained', 'lr', 'weight decay')
        ]
        for name, block in blocks.items():
            rows.append(_describe(name, block, rates))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [
            '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
            for row in rows
        ]
        title = 'Blocks, with learning rates as multiples of the base rate:'
        print_log('\n'.join([title, *lines]), logger='current')
        slow = [
            name
            for name, block in blocks.items()
            if any(
                rates[id(p)].multiple < 1 for p in block.parameters() if p.requires_grad
            )
        ]
        if slow:
            print_log(
                f'{", ".join(slow)}: the learning rate is below the base rate. A key '
                'of paramwise_cfg.custom_keys matches a part of the name; a longer '
                "one takes precedence, such as 'non_local_block': dict(lr_mult=1.)",
                logger='current',
                level=logging.WARNING,
            )


def _describe(name: str, block: nn.Module, rates: dict[int, Rate]) -> tuple[str, ...]:
    """A row of the table."""
    parameters = list(block.parameters())
    trained = [p for p in parameters if p.requires_grad]
    found = [rates[id(p)] for p in trained]
    columns = (
        sorted({rate.multiple for rate in found}),
        sorted({rate.weight_decay for rate in found}),
    )
    count = sum(p.numel() for p in parameters)
    all_trained = 'yes' if len(trained) == len(parameters) else 'in part'
    return (
        name.removeprefix('module.'),
        type(block).__name__,
        f'{count:,}',
        all_trained if trained else 'no',
        *(', '.join(f'{value:.4g}' for value in values) or '-' for values in columns),
    )


def _rates(runner: Runner) -> Iterator[tuple[nn.Parameter, Rate]]:
    """The rates of all parameters of the optimizers, without a warm-up."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    scaling = runner.cfg.get('auto_scale_lr') or {}
    scale = 1.0
    if scaling.get('enable'):  # as Runner.scale_lr does
        loader = runner.train_dataloader
        # None where a config has a batch sampler, as MMDetection's
        batch = loader.batch_size or loader.batch_sampler.batch_size
        scale = batch * get_world_size() / scaling['base_batch_size']
    for one in wrappers:
        base = one.optimizer.defaults.get('lr') or 1.0
        for group in one.param_groups:
            multiple = group.get('initial_lr', group['lr']) / (base * scale)
            for parameter in group['params']:
                yield parameter, Rate(multiple, group.get('weight_decay') or 0.0)
