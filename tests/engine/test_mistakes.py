"""A wrong type or argument in a config is one line that names its key."""

import pytest
from toy_run import MASK_RCNN

from nl_plugins import engine
from nl_plugins.engine import config as loading
from nl_plugins.engine import mistakes
from nl_plugins.errors import ConfigError


@pytest.mark.parametrize(
    'options, message',
    [
        (
            dict(model__featurs=2),
            "model.featurs: ToyModel takes no 'featurs'; did you mean 'features'",
        ),
        (
            dict(optim_wrapper__optimizer__lrr=1),
            "optim_wrapper.optimizer.lrr: SGD takes no 'lrr'; did you mean 'lr'",
        ),
        (
            dict(model__type='ToyModl'),
            "model.type: there is no 'ToyModl' in .*model; did you mean 'ToyModel'",
        ),
        (
            dict(train_dataloader__sampler__type='DefaultSampl'),
            "train_dataloader.sampler.type: .*; did you mean 'DefaultSampler'",
        ),
    ],
)
def test_a_mistake_of_a_run_names_its_key(toy, options, message):
    with pytest.raises(ConfigError, match=message):
        engine.train(toy(**options))


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'model.backbone.norm_cfg.type': 'BNN'},
            "no layer model.backbone.norm_cfg.type = 'BNN'; did you mean 'BN'",
        ),
        (
            {'model.neck.out_chanels': 8},
            "model.neck.out_chanels: FPN takes no .*; did you mean 'out_channels'",
        ),
    ],
)
def test_a_mistake_of_a_model_names_its_key(options, message):
    with pytest.raises(ConfigError, match=message):
        loading.build_model(loading.load_config(MASK_RCNN, options))


@pytest.mark.parametrize(
    'error',
    [
        TypeError("A.__init__() got an unexpected keyword argument 'no_key'"),
        TypeError('another'),
        KeyError('model'),
        KeyError(),
    ],
)
def test_other_errors_stay_as_they_are(toy, error):
    with pytest.raises(type(error)) as caught, mistakes.name_mistakes(toy()):
        raise error
    assert caught.value is error
