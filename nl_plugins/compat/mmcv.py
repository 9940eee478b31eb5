"""Workaround for a bug in mmcv 2.

=======  =================================================================
version  bug
=======  =================================================================
2.1.0    ``MMSyncBN`` cannot be built without a process group:
         :func:`replace_mmsyncbn`, which needs the config.
=======  =================================================================
"""


def replace_mmsyncbn(config: object) -> None:
    """Replace ``MMSyncBN`` by ``SyncBN`` everywhere in a config, in place.

    For runs of one process or on the CPU, where mmengine converts ``SyncBN``
    to BN. The two have the same parameters and state dict keys.

    Args:
        config (object): A config, or a list of configs. Other values are
            ignored.
    """
    if isinstance(config, dict):
        if config.get('type') == 'MMSyncBN':
            config['type'] = 'SyncBN'
        config = config.values()
    elif not isinstance(config, (list, tuple)):
        return
    for value in config:
        replace_mmsyncbn(value)
