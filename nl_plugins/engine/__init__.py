"""Load a config, check what a run needs, train and test."""

from .config import build_model, load_config
from .data_root import set_data_root
from .run import test, train

__all__ = ['build_model', 'load_config', 'set_data_root', 'test', 'train']
