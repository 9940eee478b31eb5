"""What the tests of this folder share."""

import pytest
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope, init_default_scope


@pytest.fixture
def mmdet_scope(seed):
    MMLogger.get_instance('tests', log_level='ERROR')
    current = DefaultScope._instance_dict.copy()
    init_default_scope('mmdet')
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(current)
