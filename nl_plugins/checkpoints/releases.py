"""Read the checkpoints that the code of the papers wrote."""

from typing import Any

from mmengine.runner import CheckpointLoader
from torch import Tensor

from ..errors import CheckpointMismatchError, CheckpointNotFoundError
from . import caffe2, dnl, slowfast
from .load import check_checkpoint_exists
from .renaming import rename

SOURCES = (*caffe2.SOURCES, *slowfast.SOURCES, *dnl.SOURCES)


def read_release(path: str) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Read a checkpoint with the keys of one of OpenMMLab's models.

    The names of its keys tell which code wrote it. Keys that are OpenMMLab's
    stay as they are.

    Args:
        path (str): A file, with the suffix ``.pkl`` if it is one of Caffe2.

    Returns:
        tuple[dict[str, Tensor], dict[str, Any], list[str]]: The state dict,
        the ``meta`` of the file, and the names of what else it holds, which
        is state of the training.

    Raises:
        CheckpointNotFoundError: If there is no such file.
        CheckpointReadError: If it is damaged, holds something that may run
            code, or has parameters that no model of its source has.
        CheckpointMismatchError: If it holds no state dict.
    """
    check_checkpoint_exists(path)
    content: Any
    if path.endswith('.pkl'):
        if '://' in path:
            raise CheckpointNotFoundError(f'download {path} first and name the file')
        content = caffe2.read_blobs(path)
    else:
        content = CheckpointLoader.load_checkpoint(path, 'cpu')
    if not isinstance(content, dict):
        raise CheckpointMismatchError(
            f'{path} holds no parameters, but a {type(content).__name__}'
        )
    # 'model_state' is PySlowFast's name.
    name = next((name for name in ('state_dict', 'model_state') if name in content), '')
    others = [key for key in content if key not in (name, 'meta')] if name else []
    state_dict, training = rename(content[name] if name else content, SOURCES, path)
    return state_dict, content.get('meta') or {}, others + training
