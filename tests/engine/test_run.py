"""Options take effect, or say why they cannot."""

from pathlib import Path

import pytest
import torch
from toy_run import MASK_RCNN

from nl_plugins import engine, errors
from nl_plugins.engine import config as loading
from nl_plugins.engine import run


def test_amp_needs_an_accelerator(toy, no_runner, monkeypatch):
    monkeypatch.setattr(run, 'get_device', lambda: 'cpu')
    with pytest.raises(errors.OptionError, match='--amp needs an accel'):
        engine.train(toy(), amp=True)


def test_amp(toy, monkeypatch):
    monkeypatch.setattr(run, 'get_device', lambda: 'cuda')
    cfg = toy()
    run._use_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_amp_of_the_config_is_kept(toy):
    cfg = toy(optim_wrapper__type='AmpOptimWrapper')
    before = cfg.optim_wrapper.copy()
    run._use_amp(cfg)
    assert cfg.optim_wrapper == before


def test_amp_with_another_wrapper(toy, no_runner):
    with pytest.raises(errors.OptionError, match="'ApexOptimWrapper'"):
        engine.train(toy(optim_wrapper__type='ApexOptimWrapper'), amp=True)


def test_auto_scale_lr(toy):
    cfg = toy(auto_scale_lr__base_batch_size=16, train_cfg__max_epochs=1)
    engine.train(cfg, auto_scale_lr=True)
    (group,) = torch.load('work/epoch_1.pth')['optimizer']['param_groups']
    assert group['lr'] == pytest.approx(0.01 * 2 / 16)


def test_auto_scale_lr_needs_the_batch_size(toy, no_runner):
    with pytest.raises(errors.OptionError, match=r'auto_scale_lr\.base_batch_size=N'):
        engine.train(toy(), auto_scale_lr=True)


def test_drawing_needs_a_hook(no_runner):
    cfg = loading.load_config(MASK_RCNN)
    del cfg.default_hooks.visualization
    with pytest.raises(
        errors.OptionError, match=r'visualization\.type=DetVisualizationHook'
    ):
        engine.test(cfg, 'none.pth', show_dir='pictures')


def test_drawing_is_for_pictures(toy, no_runner):
    with pytest.raises(errors.OptionError, match='not supported for'):
        engine.test(toy(), 'none.pth', show=True)


def test_tta_needs_a_model(toy, no_runner):
    with pytest.raises(errors.OptionError, match='--tta needs tta_model'):
        engine.test(toy(), 'none.pth', tta=True)


def test_tta_merges_no_masks(no_runner):
    with pytest.raises(errors.OptionError, match='cannot merge masks'):
        engine.test(loading.load_config(MASK_RCNN), 'none.pth', tta=True)


def test_out(toy, checkpoint):
    engine.test(toy(), checkpoint, out='predictions.pkl')
    assert Path('predictions.pkl').stat().st_size > 0
    with pytest.raises(errors.OptionError, match="but got 'folder'"):
        engine.test(toy(), checkpoint, out='folder')


def test_out_of_a_segmentation_is_a_folder(no_runner):
    cfg = loading.load_config('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    with pytest.raises(errors.OptionError, match='PNG label map per image'):
        engine.test(cfg, 'none.pth', out='predictions.pkl')
