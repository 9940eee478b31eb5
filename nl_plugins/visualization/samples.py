"""Models with their weights, and images and videos as these take them."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import CheckpointLoader

from ..checkpoints.load import check_checkpoint_exists, load_parameters
from ..checkpoints.upgrade import upgrade
from ..engine.config import build_model, load_config
from ..errors import OptionError
from ..toolboxes import toolbox_of
from ..toolboxes.base import unwrap_datasets


def load_model(config: str, checkpoint: str, device: str = 'cpu') -> BaseModel:
    """Build a model that is certain to have a checkpoint's parameters.

    Upstream's non-local blocks become ours, which can be looked into.

    Args:
        config (str): Path or name of a config.
        checkpoint (str): Path or URL of a checkpoint of this model.
        device (str): Where to run. Defaults to ``'cpu'``.

    Returns:
        BaseModel: The model in evaluation mode, with its config as ``cfg``
        and the classes of its data as ``dataset_meta``.

    Raises:
        ConfigNotFoundError: There is no such config.
        CheckpointNotFoundError: There is no such checkpoint.
        CheckpointMismatchError: The checkpoint belongs to another model.
    """
    check_checkpoint_exists(checkpoint)
    cfg = load_config(config)
    model: BaseModel = build_model(cfg)
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu')
    load_parameters(model, content, checkpoint, config)
    upgrade(model)
    model.cfg = cfg
    model.dataset_meta = content.get('meta', {}).get('dataset_meta') or _metainfo(cfg)
    model.to(device).eval()  # apart: ResNet3d.eval() returns nothing
    return model


def sample_from_file(cfg: Config, path: str | Path) -> dict[str, Any]:
    """Run the test pipeline of a config on a file.

    Args:
        cfg (Config): Config of a detector, segmentor or recognizer.
        path (str | Path): Image, or video for a recognizer.

    Returns:
        dict[str, Any]: ``'inputs'`` and ``'data_samples'``, as the dataset
        returns them.

    Raises:
        OptionError: The file does not exist or cannot be read.
    """
    if not Path(path).is_file():
        raise OptionError(f"there is no file '{path}'")
    toolbox = toolbox_of(cfg)
    init_default_scope(toolbox.name)
    # A file has no annotations.
    pipeline = [
        transform
        for transform in _dataset(cfg).get('pipeline', ())
        if 'Annotations' not in str(transform['type'])
    ]
    if not pipeline:
        raise OptionError(
            f'{cfg.filename} has no test_dataloader with a pipeline for a single file'
        )
    pipeline = Compose(pipeline)
    try:
        return pipeline(toolbox.file_info(Path(path), _metainfo(cfg)))
    except Exception as error:  # whatever a decoder may raise
        reason = (str(error).strip().splitlines() or [repr(error)])[-1]
        raise OptionError(
            f'{path} cannot be read as {toolbox.file_kind}: {reason}'
        ) from error


def _dataset(cfg: Config) -> dict:
    """Config of the dataset that a model is tested on."""
    return unwrap_datasets((cfg.get('test_dataloader') or {}).get('dataset', {}))[0]


def _metainfo(cfg: Config) -> dict:
    """The classes and colours of the data that a model is tested on."""
    dataset = _dataset(cfg)
    if 'type' not in dataset:
        return {}
    dataset_type = dataset['type']
    if isinstance(dataset_type, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            dataset_type = registry.get(dataset_type)
    # MMAction2's datasets know numbers alone.
    return dataset_type._load_metainfo(dataset.get('metainfo'))
