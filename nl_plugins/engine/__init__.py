"""What a run needs: its config, early checks, training and testing."""

from .config import build_model, load_config
from .run import test, train

__all__ = ['build_model', 'load_config', 'test', 'train']
