"""Missing data and checkpoints that do not fit are named early."""

import shutil
from pathlib import Path

import pytest
import tiny_coco
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from toy_run import MASK_RCNN, ToyModel, coco

from nl_plugins import NonLocal1d, engine, errors
from nl_plugins.engine import checks
from nl_plugins.engine import config as loading

SOFT_TEACHER = 'soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'


@pytest.mark.parametrize(
    'options, message',
    [
        (
            dict(train_cfg__max_epoch=3),
            "train_cfg: EpochBasedTrainLoop .* max_epoch; did you mean 'max_epochs'",
        ),
        (
            dict(train_cfg=dict(type='EpochBasedTrainLop', max_epochs=1)),
            "no loop 'EpochBasedTrainLop'; did you mean 'EpochBasedTrainLoop'",
        ),
        (dict(val_cfg__fp61=True), "val_cfg: ValLoop .*; did you mean 'fp16'"),
    ],
)
def test_an_unknown_key_of_a_loop(toy, no_runner, options, message):
    with pytest.raises(errors.OptionError, match=message):
        engine.train(toy(**options))
    with pytest.raises(errors.OptionError, match="test_cfg: TestLoop .*'fp16'"):
        engine.test(toy(test_cfg__fp61=True), 'none.pth')


def test_loops_of_a_toolbox_pass():
    cfg = loading.load_config('mmdet::soft_teacher/' + SOFT_TEACHER)
    checks.check_loops(cfg, 'train', 'val', 'test')


def test_pretrained_file_that_is_not_there(toy):
    init_cfg = dict(type='Pretrained', checkpoint='none.pth')
    with pytest.raises(errors.CheckpointNotFoundError, match="'none.pth'"):
        engine.train(toy(model__type='ToyPretrained', model__init_cfg=init_cfg))


def test_load_from_of_no_file(toy, no_runner):
    message = "load_from: .*'none.pth'; train its model first, .*load_from=None"
    with pytest.raises(errors.CheckpointNotFoundError, match=message):
        engine.train(toy(load_from='none.pth'))
    with pytest.raises(TypeError, match='NoneType'):  # goes on to the runner
        engine.train(toy(load_from=None))


def test_missing_folder(no_runner):
    cfg = loading.load_config(MASK_RCNN)
    with pytest.raises(errors.DatasetNotFoundError) as caught:
        engine.train(cfg)
    message = str(caught.value)
    for key, path in (
        ('train_dataloader.dataset.data_root', 'data/coco/'),
        ('val_dataloader.dataset.data_root', 'data/coco/'),
        ('val_evaluator.ann_file', 'data/coco/annotations/instances_val2017.json'),
    ):
        assert f'{key} = {path}\n' in message
    assert '--cfg-options train_dataloader.dataset.data_root=PATH' in message
    assert 'test_dataloader' not in message


def test_missing_files(tmp_path, no_runner):
    root = tiny_coco.write(tmp_path / 'coco')
    (root / 'annotations' / 'instances_train2017.json').unlink()
    shutil.rmtree(root / 'val2017')
    with pytest.raises(errors.DatasetNotFoundError) as caught:
        engine.train(coco(root))
    assert [line.split(' = ') for line in str(caught.value).splitlines()[1:-1]] == [
        [
            '  train_dataloader.dataset.ann_file',
            f'{root}/annotations/instances_train2017.json',
        ],
        ['  val_dataloader.dataset.data_prefix.img', f'{root}/val2017/'],
    ]


@pytest.mark.parametrize(
    'dataset, key',
    [
        (
            {'type': 'RepeatDataset', 'dataset': {'data_root': 'none'}},
            'dataset.dataset.data_root',
        ),
        (
            {
                'type': 'ConcatDataset',
                'datasets': [{'data_root': ''}, {'ann_file': 'none'}],
            },
            'dataset.datasets.1.ann_file',
        ),
        ({'data_prefix': 'none'}, 'dataset.data_prefix'),
    ],
)
def test_missing_data_in_wrappers(toy, no_runner, dataset, key):
    cfg = toy()
    cfg.train_dataloader.dataset = dataset
    with pytest.raises(
        errors.DatasetNotFoundError, match=f'train_dataloader.{key} = none\n'
    ):
        engine.train(cfg)


def test_data_elsewhere_is_not_checked():
    cfg = Config(
        {
            'test_dataloader': {
                'dataset': {'data_root': 'none', 'backend_args': {'backend': 'petrel'}}
            },
            'test_evaluator': {'ann_file': 's3://none'},
        }
    )
    checks.check_datasets(cfg, 'test')


def test_config_without_data(toy):
    cfg = toy(train_dataloader=None, test_dataloader=None)
    with pytest.raises(errors.OptionError, match='no train_dataloader'):
        engine.train(cfg)
    with pytest.raises(errors.OptionError, match='no test_dataloader'):
        engine.test(cfg, 'none.pth')


# Checkpoints --------------------------------------------------------------


def test_missing_checkpoint(toy, no_runner):
    for call in (
        lambda: engine.test(toy(), 'none.pth'),
        lambda: engine.train(toy(), resume='none.pth'),
    ):
        with pytest.raises(errors.CheckpointNotFoundError, match="'none.pth'"):
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
    for call in (
        lambda: engine.test(toy(), 'other.pth'),
        lambda: engine.train(toy(), resume='other.pth'),
    ):
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
        r'\[1, 1\] instead of \[3, 1\], .*, \.\.\.$',
    ):
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
        match=r'unknown to the model \(1\): backbone\.block\.g',
    ):
        engine.test(toy(), 'other.pth')


def test_file_without_parameters(toy):
    torch.save([1, 2], 'list.pth')
    with pytest.raises(
        errors.CheckpointMismatchError, match='no parameters, but a list'
    ):
        engine.test(toy(), 'list.pth')


def test_load_from_stays_lenient(toy, checkpoint):
    content = torch.load(checkpoint)
    del content['state_dict']['head.weight']
    torch.save(content, 'other.pth')
    engine.train(toy(load_from='other.pth', train_cfg__max_epochs=1))


@MODELS.register_module()
class ToyPretrained(ToyModel):
    def __init__(self, init_cfg):
        super().__init__()
        self.init_cfg = init_cfg


@MODELS.register_module()
class ToyWithBlock(ToyModel):
    def __init__(self):
        super().__init__()
        self.backbone.non_local_block = NonLocal1d(1)


def test_load_from_of_another_model_is_reported(toy, checkpoint, tmp_path):
    def log_of(name, **options):
        engine.train(toy(load_from=name, train_cfg__max_epochs=1, **options))
        return max(tmp_path.glob('work/*/*.log')).read_text()

    content = torch.load(checkpoint)  # which the next training replaces
    # the model without the block
    assert 'does not fit' not in log_of(checkpoint, model__type='ToyWithBlock')
    state = content['state_dict']
    state['head.other'] = state.pop('head.weight')
    state['backbone.bias'] = torch.zeros(3)
    torch.save(content, 'other.pth')
    log = log_of('other.pth')
    assert 'load_from=other.pth does not fit' in log
    assert 'missing in the checkpoint (1): head.weight' in log
    assert 'unknown to the model (1): head.other' in log
    assert 'of another shape (1): backbone.bias [3] instead of [1]' in log
    torch.save({f'net.{key}': value for key, value in state.items()}, 'none.pth')
    with pytest.raises(
        errors.CheckpointMismatchError, match='none.pth holds no parameter of the model'
    ):
        log_of('none.pth')


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


def test_resume_with_nothing_to_resume_starts_from_load_from(toy, checkpoint):
    Path(checkpoint).rename('other.pth')
    Path('work/last_checkpoint').unlink()
    trained = torch.load('other.pth')['state_dict']
    options = dict(load_from='other.pth', train_cfg__max_epochs=1)
    model = engine.train(
        toy(optim_wrapper__optimizer__lr=0.0, **options), resume='auto'
    )
    assert torch.equal(model.state_dict()['head.weight'], trained['head.weight'])
    Path('work/last_checkpoint').unlink()
    with pytest.raises(errors.CheckpointNotFoundError, match='train its model first'):
        engine.train(toy(**options | dict(load_from='none.pth')), resume='auto')


def test_resume_from_a_checkpoint_that_is_gone(toy, checkpoint, no_runner):
    Path('work/last_checkpoint').write_text('work/epoch_7.pth')
    with pytest.raises(
        errors.CheckpointNotFoundError,
        match="names 'work/epoch_7.pth', which does not exist.*work/epoch_1.pth",
    ):
        engine.train(toy(), resume='auto')


def test_resume_from_weights_alone(toy, checkpoint):
    torch.save({'state_dict': torch.load(checkpoint)['state_dict']}, 'w.pth')
    with pytest.raises(
        errors.CheckpointMismatchError,
        match='w.pth cannot be resumed: .* no meta, message_hub, '
        'optimizer.*load_from=w.pth',
    ):
        engine.train(toy(), resume='w.pth')
