"""Workarounds for bugs in upstream releases, one module per package.

Importing ``nl_plugins`` calls :func:`install`, so they also apply to
upstream's own ``tools/train.py`` with a config that has ``custom_imports =
dict(imports=['nl_plugins'])``. No toolbox is imported. The table at the top of
each module lists the bugs and the versions that have them.
"""

import functools

from . import mmaction, mmengine


@functools.cache
def install() -> None:
    """Apply the workarounds. A second call does nothing."""
    mmaction.install()
    mmengine.install()
