"""Base class of the adapters, and helpers that several of them use."""

import copy
import importlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import METRICS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..errors import OptionError


class Metric(NamedTuple):
    """A metric.

    Attributes:
        name (str): Its name in tables.
        key (str): Its key in the runner's records.
        factor (float): What converts it to percent.
    """

    name: str
    key: str
    factor: float = 1.0


class Toolbox:
    """Adapter of a toolbox; the base class is for any package on mmengine.

    Attributes:
        name (str, optional): Its package and default scope.
        distribution (str, optional): Its name for pip.
        extra (str): The extra of this package that installs it.
        is_optional (bool): Whether ``tools/install.sh`` installs it only with
            the option ``--with``.
        metrics (tuple[Metric, ...]): Its main metrics.
        sizes (str): Sizes of an input, ``'HxW'`` or ``'TxHxW'``.
        file_kind (str): Input of its models, in messages.
        tensor_options (dict): Arguments of a model's ``forward``, beside
            ``mode='tensor'``, with which all of its layers run.
        dump_metric (str): Type of the metric that writes all predictions into
            one file.
    """

    name: str | None = None
    distribution: str | None = None
    extra = 'all'
    is_optional = False
    metrics: tuple[Metric, ...] = ()
    sizes = 'HxW'
    file_kind = 'an image'
    tensor_options: dict[str, Any] = {}
    dump_metric = 'DumpResults'

    def __init__(self, name: str | None = None) -> None:
        self.name = name or self.name

    def register(self) -> None:
        """Import the toolbox and register its modules.

        Raises:
            ModuleNotFoundError: If it cannot be imported.
        """
        utils = importlib.import_module(f'{self.name}.utils')
        utils.register_all_modules(init_default_scope=False)

    def input_shape(self, cfg: Config) -> tuple[int, ...]:
        """Sizes of the input that a model is trained on, or tested on.

        Args:
            cfg (Config): Config of a model with its data.

        Returns:
            tuple[int, ...]: Frames (of video), height and width, in pixels.

        Raises:
            LookupError: If the config has no size.
            Exception: If the config lacks other keys.
        """
        raise KeyError('size')

    def batch(
        self, model: nn.Module, shape: tuple[int, ...], batch_size: int
    ) -> dict[str, Any]:
        """Make a synthetic batch, as a data loader would return it.

        Args:
            model (nn.Module): The model.
            shape (tuple[int, ...]): Frames (of video), height and width.
            batch_size (int): Number of samples.

        Returns:
            dict: ``'inputs'``, a list of random images or clips, and
            ``'data_samples'`` with annotations.

        Raises:
            OptionError: If this is not implemented for the toolbox.
        """
        raise OptionError(f'there is no synthetic batch for {self.name}')

    def config_without_blocks(self, cfg: Config) -> str | None:
        """Find the baseline of a method that is itself a block.

        Args:
            cfg (Config): Config of a model whose method is a block.

        Returns:
            str, optional: Name of upstream's config of the same backbone, data
            and schedule without a block, if its method has one.
        """
        return None

    def file_info(self, path: Path, metainfo: dict[str, Any]) -> dict[str, Any]:
        """The input of a dataset's pipeline for a file without annotations.

        Args:
            path (Path): The file.
            metainfo (dict): What the dataset says of its classes or keypoints.

        Returns:
            dict: Its name and empty annotations.
        """
        return dict(img_path=str(path), img_id=0)

    def use_visualization(
        self, cfg: Config, show: bool, show_dir: str | None, wait_time: float
    ) -> None:
        """Make the toolbox's own hook plot the prediction of every sample.

        Args:
            cfg (Config): Config of a test, changed in place.
            show (bool): Whether to show the plots in a window.
            show_dir (str, optional): Folder to write the plots into.
            wait_time (float): Seconds for which a window shows a plot.

        Raises:
            OptionError: If the toolbox or the config has no such hook.
        """
        raise OptionError(f'--show and --show-dir are not supported for {self.name}')

    def use_tta(self, cfg: Config) -> None:
        """Switch test time augmentation on.

        Args:
            cfg (Config): Config of a test, changed in place.

        Raises:
            OptionError: If the config has no test time augmentation.
        """
        for key in 'tta_model', 'tta_pipeline':
            if key not in cfg:
                raise OptionError(f'--tta needs {key}, and the config has none')
        for dataset in unwrap_datasets(cfg.test_dataloader.dataset):
            dataset.pipeline = cfg.tta_pipeline
        cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)

    def check_output_path(self, out: str) -> None:
        """Check that predictions can be written to a path.

        Args:
            out (str): The path.

        Raises:
            OptionError: If it is not that of a pickle file or, for
                segmentation, if it is.
        """
        if not out.endswith(('.pkl', '.pickle')):
            raise OptionError(f"--out must end in .pkl or .pickle, but got '{out}'")

    def write_predictions(self, runner: Runner, out: str) -> None:
        """Make a metric of the toolbox write the predictions to a path.

        Args:
            runner (Runner): Runner of a test.
            out (str): The path, see :meth:`check_output_path`.

        Raises:
            OptionError: If no metric of the test writes predictions.
        """
        runner.test_evaluator.metrics.append(
            METRICS.build(dict(type=self.dump_metric, out_file_path=out))
        )


def visualization_hook(cfg: Config, hook_type: str) -> ConfigDict:
    """The hook in a config that plots predictions.

    Args:
        cfg (Config): Config of a test.
        hook_type (str): Type of the hook in this toolbox.

    Returns:
        ConfigDict: Its config.

    Raises:
        OptionError: If the config has no such hook.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise OptionError(
            '--show and --show-dir need a visualization hook, and the config '
            'has none: --cfg-options default_hooks.visualization.type='
            f'{hook_type}'
        )
    return hook


def flip_pipeline(cfg: Config, pack: dict | None = None) -> list[dict]:
    """A pipeline of test time augmentation: each image as it is, and flipped.

    Args:
        cfg (Config): Config of a test.
        pack (dict, optional): The last transform. Defaults to None, that of
            the test pipeline.

    Returns:
        list[dict]: The other transforms of the test pipeline, and both views.
    """
    dataset = unwrap_datasets(cfg.test_dataloader.dataset)[0]
    *transforms, last = copy.deepcopy(dataset.pipeline)
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    views = dict(type='TestTimeAug', transforms=[flips, [pack or last]])
    return [*transforms, views]


def unwrap_datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """The configs of the datasets inside of wrappers.

    Args:
        dataset (ConfigDict): ``dataset`` of a data loader.

    Returns:
        list[ConfigDict]: At least one, each the outermost with a pipeline or,
        without any, the innermost.
    """
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    if 'pipeline' in dataset or inner == [None]:
        return [dataset]
    return [leaf for wrapped in inner for leaf in unwrap_datasets(wrapped)]


def random_bytes(*shape: int) -> Tensor:
    """Random ``uint8`` numbers, the same ones in every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)
