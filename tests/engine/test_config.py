"""Configs are found by path and by name."""

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from toy_run import MASK_RCNN

from nl_plugins import errors
from nl_plugins.engine import config as loading


def test_config_of_a_toolbox_by_its_name(monkeypatch):
    cfg = loading.load_config(MASK_RCNN, {'train_cfg.max_epochs': 3})
    assert cfg.model.type == 'MaskRCNN'
    assert cfg.train_cfg.max_epochs == 3
    assert cfg.work_dir == './work_dirs/mask-rcnn_r50_fpn_1x_coco'
    assert cfg.launcher == 'none'


def test_own_config_by_its_name_as_argument_and_as_base(tmp_path):
    name = (
        'nl_plugins::dnlnet/ablations/'
        'dnl-unary-separate_r50-d8_4xb2-40k_cityscapes-512x1024.py'
    )
    file = tmp_path / 'config.py'
    file.write_text(f'_base_ = {name!r}\nwork_dir = None')
    by_name, inherited = map(loading.load_config, (name, str(file)))
    assert by_name.model.decode_head.type == 'nl_plugins.DNLHead'
    assert by_name.model.decode_head.block.terms == ('unary',)
    # as by its path, with no scope that hides the toolbox
    assert inherited.to_dict() == by_name.to_dict() | {'work_dir': inherited.work_dir}


def test_config_by_its_path(toy):
    assert toy(model__features=2).model.features == 2


def test_work_dir_of_the_config_is_kept(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text("work_dir = 'mine'")
    assert loading.load_config(str(file)).work_dir == 'mine'
    assert loading.load_config(str(file), work_dir='w').work_dir == 'w'


@pytest.mark.parametrize(
    'name, suggestion',
    [
        ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x.py', MASK_RCNN),
        ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', MASK_RCNN),
        (
            'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x.py',
            'nl_plugins::mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py',
        ),
        (
            'nl_plugins::mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x.py',
            'nl_plugins::mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py',
        ),
        ('mmdett::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mmdet'),
        ('nl_plugin::mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py', 'nl_plugins'),
    ],
)
def test_unknown_config(name, suggestion):
    with pytest.raises(errors.ConfigNotFoundError) as caught:
        loading.load_config(name)
    assert f"'{name.rpartition('::')[2]}" in str(caught.value) or (
        f"'{name}'" in str(caught.value)
    )
    assert suggestion in str(caught.value).partition('did you mean')[2]


@pytest.mark.parametrize('package', ['mmdet', 'nl_plugins'])
def test_unknown_base(package, tmp_path):
    file = tmp_path / 'config.py'
    file.write_text(f"_base_ = '{package}::mask_rcnn/none.py'")
    with pytest.raises(
        errors.ConfigNotFoundError,
        match='a config that it inherits is missing: .*none.py',
    ):
        loading.load_config(str(file))


@pytest.mark.parametrize(
    'text, message',
    [
        ('model = dict(', r'a.py cannot be loaded: SyntaxError: .*line 1'),
        ('x = foo', "a.py cannot be loaded: NameError: name 'foo' is not defined"),
    ],
)
def test_a_config_that_python_refuses(tmp_path, text, message):
    (tmp_path / 'a.py').write_text(text)
    with pytest.raises(errors.ConfigError, match=message):
        loading.load_config(str(tmp_path / 'a.py'))


def test_options_that_do_not_fit_the_config(toy):
    with pytest.raises(errors.ConfigError, match='--cfg-options: .* cannot inherit'):
        toy(train_cfg__by_epoch__x=1)


def test_toolbox_that_is_not_installed(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text("_base_ = 'mmrotate::hand/none.py'")
    for name in 'mmrotate::hand/none.py', str(file):
        with pytest.raises(
            errors.ToolboxNotInstalledError,
            match=r"mmrotate.* not installed.*pip install 'nl_plugins\[",
        ):
            loading.load_config(name)


def test_toolbox_with_a_missing_requirement(tmp_path, monkeypatch):
    # As mmseg without ftfy.
    package = tmp_path / 'toolbox'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'utils.py').write_text('import missing_requirement')
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / 'config.py'
    file.write_text("default_scope = 'toolbox'")
    with pytest.raises(
        errors.ToolboxNotInstalledError,
        match='toolbox, which cannot be imported: No module named '
        "'missing_requirement'.*install.sh",
    ):
        loading.load_config(str(file))


@pytest.mark.parametrize(
    'missing, extra',
    [
        ('mmdet', 'det'),
        ('mmsegmentation', 'seg'),
        ('mmaction', 'video'),
        ('mmpose', 'pose'),
        ('mmpretrain', 'cls'),
    ],
)
def test_message_names_the_extra(missing, extra):
    message = loading._how_to_install(missing)
    assert f'nl_plugins[{extra}]' in message
    assert (f'install.sh --with {extra},' in message) == (extra in ('pose', 'cls'))


def test_toolbox_of_a_config_with_classes_for_types():
    cfg = Config({'test_dataloader': {'dataset': {'type': CocoDataset}}})
    assert loading.toolbox_of(cfg).name == 'mmdet'
