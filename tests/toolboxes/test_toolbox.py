"""The adapters' base class and helpers."""

from mmengine.config import Config, ConfigDict

from nl_plugins.toolboxes import TOOLBOXES, Toolbox
from nl_plugins.toolboxes.base import unwrap_datasets


def test_toolboxes_are_listed_by_their_names():
    assert {key: toolbox.name for key, toolbox in TOOLBOXES.items()} == {
        key: key for key in TOOLBOXES
    }


def test_unwrap_datasets_finds_every_dataset_with_a_pipeline():
    a, b = (dict(type=name, pipeline=[name]) for name in 'ab')
    repeated = dict(type='RepeatDataset', dataset=a)
    mixed = dict(type='MultiImageMixDataset', pipeline=['mix'], dataset=b)
    dataset = ConfigDict(type='ConcatDataset', datasets=[repeated, mixed, b])
    assert unwrap_datasets(dataset) == [a, mixed, b]


def test_unwrap_datasets_without_a_pipeline_finds_the_innermost():
    plain = ConfigDict(type='a')
    assert unwrap_datasets(plain) == [plain]
    assert unwrap_datasets(ConfigDict(type='b', dataset=plain)) == [plain]


def test_tta_reaches_all_concatenated_datasets():
    cfg = Config(
        dict(
            model=dict(type='model'),
            tta_model=dict(type='tta'),
            tta_pipeline=['augment'],
            test_dataloader=dict(
                dataset=dict(
                    type='ConcatDataset',
                    datasets=[dict(type=name, pipeline=['load']) for name in 'ab'],
                )
            ),
        )
    )
    Toolbox('any').use_tta(cfg)
    datasets = cfg.test_dataloader.dataset.datasets
    assert [d.pipeline for d in datasets] == [['augment']] * 2
