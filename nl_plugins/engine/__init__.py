"""Load a config, check what a run needs, train and test."""

from .config import build_model, load_config
from .run import test, train

__all__ = ['build_model', 'load_config', 'test', 'train']
