"""Workarounds for bugs of upstream releases, one module a package.

:func:`install` runs when ``nl_plugins`` is imported, so upstream's own
``tools/train.py`` gets them too from a config with ``custom_imports =
dict(imports=['nl_plugins'])``. It imports no toolbox. Each module says what
is wrong, and in which versions; to others it is not applied.
"""

import functools

from . import mmaction, mmengine


@functools.cache
def install() -> None:
    """Apply the workarounds. A second call does nothing."""
    mmaction.install()
    mmengine.install()
