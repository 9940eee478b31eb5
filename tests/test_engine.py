"""Configs are found, options take effect, and mistakes are named early."""
import shutil
from pathlib import Path

import pytest
import tiny_coco
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn

from nl_plugins import checks, engine, errors
from nl_plugins.errors import CheckpointReadError

MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

# A model, a dataset and a metric of a few lines: the checks need no detector.


@MODELS.register_module()
class ToyModel(BaseModel):

    def __init__(self, features=1, head=True):
        super().__init__()
        self.backbone = nn.Linear(1, features)
        self.neck = nn.BatchNorm1d(features)
        if head:
            self.head = nn.Linear(features, 1)

    def forward(self, inputs, mode='tensor'):
        outputs = self.neck(self.backbone(torch.stack(inputs)))
        if mode == 'loss':
            return {'loss': self.head(outputs).square().mean()}
        return list(outputs.detach())


@DATASETS.register_module()
class ToyDataset(torch.utils.data.Dataset):

    def __init__(self, data_root='', ann_file='', data_prefix=None):
        pass

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'inputs': torch.full((1, ), float(index))}


@METRICS.register_module()
class ToyMetric(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return {'count': len(results)}


TOY = """
default_scope = 'mmengine'
model = dict(type='ToyModel')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ToyDataset'))
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=.01, momentum=.9))
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ToyDataset'))
test_cfg = dict()
test_evaluator = dict(type='ToyMetric')
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Loads the config of the toy, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    # mmengine keeps loggers and message hubs by the name of the experiment.
    Path(f'{tmp_path.name}.py').write_text(TOY)

    def load(**kwargs) -> Config:
        options = {key.replace('__', '.'): v for key, v in kwargs.items()}
        return engine.load_config(f'{tmp_path.name}.py', options, 'work')

    return load


# Configs ------------------------------------------------------------------


def test_config_of_a_toolbox_by_its_name(monkeypatch):
    cfg = engine.load_config(MASK_RCNN, {'train_cfg.max_epochs': 3})
    assert cfg.model.type == 'MaskRCNN'
    assert cfg.train_cfg.max_epochs == 3
    assert cfg.work_dir == './work_dirs/mask-rcnn_r50_fpn_1x_coco'
    assert cfg.launcher == 'none'


def test_config_by_its_path(toy):
    assert toy(model__features=2).model.features == 2


def test_work_dir_of_the_config_is_kept(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text("work_dir = 'mine'")
    assert engine.load_config(str(file)).work_dir == 'mine'
    assert engine.load_config(str(file), work_dir='w').work_dir == 'w'


@pytest.mark.parametrize('name, suggestion', [
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x.py', MASK_RCNN),
    ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', MASK_RCNN),
    ('configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x.py',
     'configs/mask_rcnn/mask-rcnn_r50-nl-c4_fpn_1x_coco.py'),
    ('mmdett::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mmdet'),
])
def test_unknown_config(name, suggestion):
    with pytest.raises(errors.ConfigNotFoundError) as caught:
        engine.load_config(name)
    assert f"'{name.rpartition('::')[2]}" in str(caught.value) or (
        f"'{name}'" in str(caught.value))
    assert suggestion in str(caught.value).partition('did you mean')[2]


def test_unknown_base(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text("_base_ = 'mmdet::mask_rcnn/none.py'")
    with pytest.raises(
            errors.ConfigNotFoundError,
            match='a config that it inherits is missing: .*none.py'):
        engine.load_config(str(file))


def test_toolbox_that_is_not_installed(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text("_base_ = 'mmpose::hand/none.py'")
    for name in 'mmpose::hand/none.py', str(file):
        with pytest.raises(
                errors.ToolboxNotInstalledError,
                match=r"mmpose.* not installed.*pip install 'nl_plugins\["):
            engine.load_config(name)


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
            match="toolbox, which cannot be imported: No module named "
            "'missing_requirement'.*install.sh"):
        engine.load_config(str(file))


@pytest.mark.parametrize('missing, extra', [('mmdet', 'det'),
                                            ('mmsegmentation', 'seg'),
                                            ('mmaction', 'video')])
def test_message_names_the_extra(missing, extra):
    assert f'nl_plugins[{extra}]' in engine._how_to_install(missing)


# Data ---------------------------------------------------------------------


@pytest.fixture
def no_runner(monkeypatch):
    """Makes it an error to build a runner."""
    monkeypatch.setattr(Runner, 'from_cfg', None)


def coco(folder: Path, **kwargs) -> Config:
    options = tiny_coco.data_options(folder) | kwargs
    return engine.load_config(MASK_RCNN, options, str(folder.parent / 'work'))


def test_missing_folder(no_runner):
    cfg = engine.load_config(MASK_RCNN)
    with pytest.raises(errors.DatasetNotFoundError) as caught:
        engine.train(cfg)
    message = str(caught.value)
    for key, path in (('train_dataloader.dataset.data_root', 'data/coco/'),
                      ('val_dataloader.dataset.data_root', 'data/coco/'),
                      ('val_evaluator.ann_file',
                       'data/coco/annotations/instances_val2017.json')):
        assert f'{key} = {path}\n' in message
    assert '--cfg-options train_dataloader.dataset.data_root=PATH' in message
    assert 'test_dataloader' not in message


def test_missing_files(tmp_path, no_runner):
    root = tiny_coco.write(tmp_path / 'coco')
    (root / 'annotations' / 'instances_train2017.json').unlink()
    shutil.rmtree(root / 'val2017')
    with pytest.raises(errors.DatasetNotFoundError) as caught:
        engine.train(coco(root))
    assert [line.split(' = ') for line in str(caught.value).splitlines()[1:-1]
            ] == [[
                '  train_dataloader.dataset.ann_file',
                f'{root}/annotations/instances_train2017.json'
            ], [
                '  val_dataloader.dataset.data_prefix.img', f'{root}/val2017/'
            ]]


@pytest.mark.parametrize('dataset, key', [
    ({
        'type': 'RepeatDataset',
        'dataset': {
            'data_root': 'none'
        }
    }, 'dataset.dataset.data_root'),
    ({
        'type': 'ConcatDataset',
        'datasets': [{
            'data_root': ''
        }, {
            'ann_file': 'none'
        }]
    }, 'dataset.datasets.1.ann_file'),
    ({
        'data_prefix': 'none'
    }, 'dataset.data_prefix'),
])
def test_missing_data_in_wrappers(toy, no_runner, dataset, key):
    cfg = toy()
    cfg.train_dataloader.dataset = dataset
    with pytest.raises(
            errors.DatasetNotFoundError,
            match=f'train_dataloader.{key} = none\n'):
        engine.train(cfg)


def test_data_elsewhere_is_not_checked():
    cfg = Config({
        'test_dataloader': {
            'dataset': {
                'data_root': 'none',
                'backend_args': {
                    'backend': 'petrel'
                }
            }
        },
        'test_evaluator': {
            'ann_file': 's3://none'
        }
    })
    checks.check_datasets(cfg, 'test')


def test_config_without_data(toy):
    cfg = toy(train_dataloader=None, test_dataloader=None)
    with pytest.raises(errors.OptionError, match='no train_dataloader'):
        engine.train(cfg)
    with pytest.raises(errors.OptionError, match='no test_dataloader'):
        engine.test(cfg, 'none.pth')


# Checkpoints --------------------------------------------------------------


@pytest.fixture
def checkpoint(toy) -> str:
    """A checkpoint of the toy, after one epoch."""
    engine.train(toy(train_cfg__max_epochs=1))
    return 'work/epoch_1.pth'


def test_missing_checkpoint(toy, no_runner):
    for call in (lambda: engine.test(toy(), 'none.pth'),
                 lambda: engine.train(toy(), resume='none.pth')):
        with pytest.raises(
                errors.CheckpointNotFoundError, match="'none.pth'"):
            call()


def test_checkpoint_of_the_same_model(toy, checkpoint):
    assert engine.test(toy(), checkpoint) == {'count': 4}


def test_checkpoint_without_parameters_of_the_model(toy, checkpoint):
    content = torch.load(checkpoint)
    content['state_dict'] = {
        'module.' + key: value
        for key, value in content['state_dict'].items()
        if 'backbone' not in key and 'num_batches' not in key
    }
    torch.save(content, 'other.pth')
    for call in (lambda: engine.test(toy(), 'other.pth'),
                 lambda: engine.train(toy(), resume='other.pth')):
        with pytest.raises(errors.CheckpointMismatchError) as caught:
            call()
        assert 'other.pth does not fit the model of' in str(caught.value)
        assert str(caught.value).splitlines()[1:] == [
            '  missing in the checkpoint (2): backbone.weight, backbone.bias'
        ]


def test_checkpoint_of_another_shape(toy, checkpoint):
    with pytest.raises(
            errors.CheckpointMismatchError,
            match=r'of another shape \(7\): backbone\.weight '
            r'\[1, 1\] instead of \[3, 1\], .*, \.\.\.$'):
        engine.test(toy(model__features=3), checkpoint)


def test_checkpoint_with_more_than_the_model(toy, checkpoint):
    content = torch.load(checkpoint)
    # What an old checkpoint may hold beside the model does not matter.
    content['state_dict']['ema_backbone_weight'] = torch.zeros(1)
    content['state_dict']['auxiliary.weight'] = torch.zeros(1)
    torch.save(content, 'other.pth')
    assert engine.test(toy(), 'other.pth') == {'count': 4}
    # A block that the model lacks does.
    content['state_dict']['backbone.block.g.weight'] = torch.zeros(1)
    torch.save(content, 'other.pth')
    with pytest.raises(
            errors.CheckpointMismatchError,
            match=r'unknown to the model \(1\): backbone\.block\.g'):
        engine.test(toy(), 'other.pth')


def test_file_without_parameters(toy):
    torch.save([1, 2], 'list.pth')
    with pytest.raises(
            errors.CheckpointMismatchError, match='no parameters, but a list'):
        engine.test(toy(), 'list.pth')


def test_load_from_stays_lenient(toy, checkpoint):
    content = torch.load(checkpoint)
    del content['state_dict']['head.weight']
    torch.save(content, 'other.pth')
    engine.train(toy(load_from='other.pth', train_cfg__max_epochs=1))


def test_resume(toy, checkpoint):
    weight = torch.load(checkpoint)['state_dict']['head.weight']
    for resume in 'auto', checkpoint:
        engine.train(toy(train_cfg__max_epochs=2), resume=resume)
        last = torch.load('work/epoch_2.pth')
        assert (last['meta']['epoch'], last['meta']['iter']) == (2, 4)
        assert not torch.equal(last['state_dict']['head.weight'], weight)
        Path('work/epoch_2.pth').unlink()
        Path('work/last_checkpoint').write_text(checkpoint)


def test_resume_with_nothing_to_resume_starts(toy):
    engine.train(toy(train_cfg__max_epochs=1), resume='auto')
    assert torch.load('work/epoch_1.pth')['meta']['iter'] == 2


def test_resume_from_a_checkpoint_that_is_gone(toy, checkpoint, no_runner):
    Path('work/last_checkpoint').write_text('work/epoch_7.pth')
    with pytest.raises(
            errors.CheckpointNotFoundError,
            match="names 'work/epoch_7.pth', which does not exist.*"
            'work/epoch_1.pth'):
        engine.train(toy(), resume='auto')


def test_resume_from_weights_alone(toy, checkpoint):
    torch.save({'state_dict': torch.load(checkpoint)['state_dict']}, 'w.pth')
    with pytest.raises(
            errors.CheckpointMismatchError,
            match='w.pth cannot be resumed: .* no meta, message_hub, '
            'optimizer.*load_from=w.pth'):
        engine.train(toy(), resume='w.pth')


# Options ------------------------------------------------------------------


def test_amp_needs_an_accelerator(toy, no_runner, monkeypatch):
    monkeypatch.setattr(engine, 'get_device', lambda: 'cpu')
    with pytest.raises(errors.OptionError, match='--amp needs an accel'):
        engine.train(toy(), amp=True)


def test_amp(toy, monkeypatch):
    monkeypatch.setattr(engine, 'get_device', lambda: 'cuda')
    cfg = toy()
    engine._use_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_amp_of_the_config_is_kept(toy):
    cfg = toy(optim_wrapper__type='AmpOptimWrapper')
    before = cfg.optim_wrapper.copy()
    engine._use_amp(cfg)
    assert cfg.optim_wrapper == before


def test_amp_with_another_wrapper(toy, no_runner):
    with pytest.raises(errors.OptionError, match="'ApexOptimWrapper'"):
        engine.train(toy(optim_wrapper__type='ApexOptimWrapper'), amp=True)


def test_auto_scale_lr(toy):
    cfg = toy(auto_scale_lr__base_batch_size=16, train_cfg__max_epochs=1)
    engine.train(cfg, auto_scale_lr=True)
    group, = torch.load('work/epoch_1.pth')['optimizer']['param_groups']
    assert group['lr'] == pytest.approx(.01 * 2 / 16)


def test_auto_scale_lr_needs_the_batch_size(toy, no_runner):
    with pytest.raises(
            errors.OptionError, match=r'auto_scale_lr\.base_batch_size=N'):
        engine.train(toy(), auto_scale_lr=True)


def test_drawing_needs_a_hook(no_runner):
    cfg = engine.load_config(MASK_RCNN)
    del cfg.default_hooks.visualization
    with pytest.raises(
            errors.OptionError,
            match=r'visualization\.type=DetVisualizationHook'):
        engine.test(cfg, 'none.pth', show_dir='pictures')


def test_toolbox_of_a_config_with_classes_for_types():
    cfg = Config({'test_dataloader': {'dataset': {'type': CocoDataset}}})
    assert engine._toolbox(cfg) == 'mmdet'


def test_drawing_is_for_pictures(toy, no_runner):
    with pytest.raises(
            errors.OptionError, match='for detection and segmentation'):
        engine.test(toy(), 'none.pth', show=True)


def test_tta_needs_a_model(toy, no_runner):
    with pytest.raises(errors.OptionError, match='--tta needs tta_model'):
        engine.test(toy(), 'none.pth', tta=True)


def test_tta_merges_no_masks(no_runner):
    with pytest.raises(errors.OptionError, match='cannot merge masks'):
        engine.test(engine.load_config(MASK_RCNN), 'none.pth', tta=True)


def test_out(toy, checkpoint):
    engine.test(toy(), checkpoint, out='predictions.pkl')
    assert Path('predictions.pkl').stat().st_size > 0
    with pytest.raises(errors.OptionError, match="but got 'folder'"):
        engine.test(toy(), checkpoint, out='folder')


def test_out_of_a_segmentation_is_a_folder(no_runner):
    cfg = engine.load_config(
        'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    with pytest.raises(errors.OptionError, match='PNG label map per image'):
        engine.test(cfg, 'none.pth', out='predictions.pkl')


# Command line -------------------------------------------------------------


@pytest.mark.parametrize('error', [
    errors.OptionError('what to do'),
    CheckpointReadError('what to do'),
])
def test_errors_are_one_message(monkeypatch, error):
    with pytest.raises(SystemExit) as caught, engine.clear_errors():
        raise error
    assert caught.value.code == 'error: what to do'
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    with pytest.raises(SystemExit) as caught, engine.clear_errors():
        raise error
    assert caught.value.code == 1


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), engine.clear_errors():
        raise ZeroDivisionError
