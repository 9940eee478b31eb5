"""Rename the keys of released checkpoints to those of OpenMMLab's models."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ..errors import CheckpointReadError

#: Parts of OpenMMLab's models, with which all of their keys begin.
_PARTS = re.compile(
    r'(backbone|neck|rpn_head|roi_head|decode_head|auxiliary_head|cls_head)\.'
)


class Source(NamedTuple):
    """Code that released checkpoints, and how its keys are renamed.

    Attributes:
        name (str): Its name in messages.
        mark (str): Regular expression that matches the beginning of a key
            which no other source has.
        table (Sequence[tuple[str, str]]): Regular expressions and their
            replacements. All of them are applied to every key, in this order.
        finish (Callable, optional): Changes the renamed state dict where more
            than the names differs.
        training (str): Regular expression that matches the names of what is
            no parameter, but state of the training.
    """

    name: str
    mark: str
    table: Sequence[tuple[str, str]]
    finish: Callable[[dict[str, Tensor]], None] | None = None
    training: str = '(?!)'

    def rename(self, key: str) -> str:
        """The key of OpenMMLab's model."""
        for pattern, replacement in self.table:
            key = re.sub(pattern, replacement, key)
        return key


def rename(
    state_dict: Mapping[str, Tensor], sources: Sequence[Source], name: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the keys of a state dict if it is that of a known source.

    Args:
        state_dict (Mapping[str, Tensor]): Parameters by the names in the
            file.
        sources (Sequence[Source]): The known sources.
        name (str): Name of the file in messages.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The state dict of one of
        OpenMMLab's models, and the names of the training state that is left
        out. The state dict of no known source is returned as it is.

    Raises:
        CheckpointReadError: If a key is in no model of the source.
    """
    # A model that was saved in a wrapper has one more name before its keys.
    given = {re.sub(r'^module\.', '', key): v for key, v in state_dict.items()}
    source = next(
        (s for s in sources if any(re.match(s.mark, key) for key in given)), None
    )
    if source is None:
        return dict(state_dict), []
    renamed: dict[str, Tensor] = {}
    training: list[str] = []
    unknown: list[str] = []
    for key, value in given.items():
        if re.fullmatch(source.training, key):
            training.append(key)
            continue
        new = source.rename(key)
        if new in renamed or not _PARTS.match(new):
            unknown.append(key)
        renamed[new] = value
    if unknown:
        raise CheckpointReadError(
            f'{name} looks like a checkpoint of {source.name}, but has what none of '
            f'its models with a ResNet has ({len(unknown)}): '
            + ', '.join(unknown[:5])
            + (', ...' if len(unknown) > 5 else '')
        )
    if source.finish:
        source.finish(renamed)
    return renamed, training
