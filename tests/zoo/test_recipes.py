"""Recipes in metafiles are those of the configs."""

from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict

from nl_plugins.errors import MetafileError
from nl_plugins.zoo.recipes import check_recipe, recipe_of, source_table

CONFIG = Path(__file__).parents[2] / (
    'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py'
)
RECIPE = {
    'GPUs': 8,
    'Batch Size': 16,
    'Learning Rate': 0.02,
    'Weight Decay': 0.0001,
    'Schedule': '12 epochs',
    'Blocks': ['NonLocal2d before layer3.-1 of backbone'],
}


@pytest.fixture
def cfg():
    return Config.fromfile(CONFIG)


def test_recipe_of_a_config(cfg):
    assert recipe_of(cfg, CONFIG.stem) == RECIPE
    check_recipe(dict(Name=CONFIG.stem, Recipe=RECIPE), cfg)


@pytest.mark.parametrize(
    'change, message',
    [
        ('auto_scale_lr.base_batch_size=64', 'Batch Size is 16 .* 64 in the config'),
        ('optim_wrapper.optimizer.lr=0.01', 'Learning Rate is 0.02 .* 0.01'),
        ('optim_wrapper.optimizer.weight_decay=0.0', 'Weight Decay is 0.0001 .* 0.0'),
        ('train_cfg.max_epochs=24', "Schedule is '12 epochs' .* '24 epochs'"),
        ('model.backbone.blocks.0.mode=gaussian', r'Blocks is .*mode=gaussian'),
    ],
)
def test_a_change_of_the_config_alone_is_an_error(cfg, change, message):
    key, _, value = change.partition('=')
    value = value if value.isalpha() else float(value)
    cfg.merge_from_dict({key: int(value) if value in (24, 64) else value})
    with pytest.raises(MetafileError, match=f'Recipe of .*: .*{message}'):
        check_recipe(dict(Name=CONFIG.stem, Recipe=RECIPE), cfg)


@pytest.mark.parametrize('key', RECIPE)
def test_a_change_of_the_metafile_alone_is_an_error(cfg, key):
    for recipe in ({**RECIPE, key: 7}, {k: RECIPE[k] for k in RECIPE if k != key}):
        with pytest.raises(MetafileError, match=f'{key} is '):
            check_recipe(dict(Name=CONFIG.stem, Recipe=recipe), cfg)


def test_gpus_and_samples_in_the_name():
    cfg = Config(
        dict(
            train_dataloader=dict(batch_size=4),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=40000),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            model=dict(type='X'),
        )
    )
    found = recipe_of(cfg, 'fcn_r50_8xb4-40k_cityscapes')
    assert (found['GPUs'], found['Batch Size']) == (8, 32)
    assert (found['Schedule'], found['Weight Decay']) == ('40000 iterations', 0)
    with pytest.raises(MetafileError, match='8 x 2 in its name, but 4 samples'):
        recipe_of(cfg, 'fcn_r50_8xb2-40k_cityscapes')
    cfg.auto_scale_lr = ConfigDict(base_batch_size=16)
    with pytest.raises(MetafileError, match='a base_batch_size of 16'):
        recipe_of(cfg, 'fcn_r50_8xb4-40k_cityscapes')


@pytest.mark.parametrize(
    'source',
    [
        dict(Paper='a'),
        dict(Paper='a', Where='Table 1', Results='1'),
        dict(Paper='a', Where='Table 1', Differences=[dict(What='rate', Here=1)]),
    ],
)
def test_a_source_has_certain_keys(cfg, source):
    with pytest.raises(MetafileError, match='must have Paper and Where'):
        check_recipe(dict(Name=CONFIG.stem, Recipe=RECIPE, Source=source), cfg)


def test_table_of_the_sources():
    difference = dict(What='GPUs', Here=8, Source=16, Why='the toolbox')
    source = dict(Paper='NL', Where='Table 5', Result='box AP 39.0')
    entry = dict(Name='a', Config='configs/x/a.py', Recipe=RECIPE)
    table = source_table(
        [entry, entry | dict(Source=source | dict(Differences=[difference]))]
    )
    assert table.splitlines()[2:] == [
        '| [a](a.py) | NL, Table 5 | box AP 39.0     |      | 8 x 2          '
        '| GPUs: 8, there 16; the toolbox |'
    ]
    assert source_table([entry]) == ''
