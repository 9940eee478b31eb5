"""What this package asks a toolbox."""

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
    """A metric: its name, the key of its records, and what makes it percent."""

    name: str
    key: str
    factor: float = 1.0


class Toolbox:
    """Answers of a toolbox; here those of any package on mmengine.

    Attributes:
        name (str, optional): Its package and default scope.
        distribution (str, optional): What pip calls it.
        extra (str): The extra of this package that installs it.
        metrics (tuple[Metric, ...]): Its main metrics.
        sizes (str): Form of an input's sizes, ``'HxW'`` or ``'TxHxW'``.
        file_kind (str): What its models predict on.
        tensor_options (dict): What a model needs beside ``mode='tensor'``
            to run to its end.
        dump_metric (str): The metric that writes all predictions into one
            file.
    """

    name: str | None = None
    distribution: str | None = None
    extra = 'all'
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
            ModuleNotFoundError: It cannot be imported.
        """
        utils = importlib.import_module(f'{self.name}.utils')
        utils.register_all_modules(init_default_scope=False)

    def input_shape(self, cfg: Config) -> tuple[int, ...]:
        """Sizes of what a model is trained on, or tested on.

        Args:
            cfg (Config): Config of a model with its data.

        Returns:
            tuple[int, ...]: Frames (of video), height and width.

        Raises:
            LookupError: The config does not say it; also what else a config
                without the usual keys raises.
        """
        raise KeyError('size')

    def batch(
        self, model: nn.Module, shape: tuple[int, ...], batch_size: int
    ) -> dict[str, Any]:
        """Make what a data loader would give to a model.

        Args:
            model (nn.Module): The model.
            shape (tuple[int, ...]): Frames (of video), height and width.
            batch_size (int): Samples.

        Returns:
            dict: ``'inputs'``, a list of noise, and ``'data_samples'`` with
            annotations.

        Raises:
            OptionError: There is none for this toolbox.
        """
        raise OptionError(f'there is no synthetic batch for {self.name}')

    def file_info(self, path: Path) -> dict[str, Any]:
        """What the pipeline of a dataset starts with, for a file.

        Args:
            path (Path): The file.

        Returns:
            dict: Its name, and annotations that are empty.
        """
        return dict(img_path=str(path), img_id=0)

    def use_visualization(
        self, cfg: Config, show: bool, show_dir: str | None, wait_time: float
    ) -> None:
        """Let the toolbox's own hook draw the prediction of every sample.

        Args:
            cfg (Config): Config of a test, changed in place.
            show (bool): Whether to show it in a window.
            show_dir (str, optional): Folder to write it into.
            wait_time (float): Seconds that a window stays.

        Raises:
            OptionError: The toolbox or the config has no such hook.
        """
        raise OptionError(
            '--show and --show-dir are for detection and '
            f'segmentation, but the config is for {self.name}'
        )

    def use_tta(self, cfg: Config) -> None:
        """Switch test time augmentation on.

        Args:
            cfg (Config): Config of a test, changed in place.

        Raises:
            OptionError: The config has none.
        """
        for key in 'tta_model', 'tta_pipeline':
            if key not in cfg:
                raise OptionError(f'--tta needs {key}, and the config has none')
        innermost_dataset(cfg).pipeline = cfg.tta_pipeline
        cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)

    def check_out(self, out: str) -> None:
        """Check that predictions can be kept under a path.

        Args:
            out (str): The path.

        Raises:
            OptionError: They cannot.
        """
        if not out.endswith(('.pkl', '.pickle')):
            raise OptionError(f"--out must end in .pkl or .pickle, but got '{out}'")

    def keep_predictions(self, runner: Runner, out: str) -> None:
        """Let the toolbox's own metric keep the predictions.

        Args:
            runner (Runner): Runner of a test.
            out (str): Where to keep them.

        Raises:
            OptionError: Its metrics cannot.
        """
        runner.test_evaluator.metrics.append(
            METRICS.build(dict(type=self.dump_metric, out_file_path=out))
        )


def visualization_hook(cfg: Config, hook_type: str) -> ConfigDict:
    """The hook of a config that draws predictions.

    Args:
        cfg (Config): Config of a test.
        hook_type (str): What it is in this toolbox.

    Returns:
        ConfigDict: Its config.

    Raises:
        OptionError: The config has none.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise OptionError(
            '--show and --show-dir need a visualization hook, and the config '
            'has none: --cfg-options default_hooks.visualization.type='
            f'{hook_type}'
        )
    return hook


def innermost_dataset(cfg: Config) -> ConfigDict:
    """The dataset of a test, inside of its wrappers."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def dataset_with_pipeline(dataset: dict) -> dict:
    """The config of the dataset inside of wrappers, the first of several.

    Args:
        dataset (dict): ``dataset`` of a data loader.

    Returns:
        dict: The first one that has a pipeline, or else the innermost.
    """
    while 'pipeline' not in dataset:
        if 'datasets' in dataset:
            dataset = dataset['datasets'][0]
        elif 'dataset' in dataset:
            dataset = dataset['dataset']
        else:
            break
    return dataset


def noise(*shape: int) -> Tensor:
    """The same bytes at each call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)
