"""Workaround for mmcv 2.

=======  =================================================================
version  bug
=======  =================================================================
2.1.0    ``MMSyncBN`` cannot be built without a process group:
         :func:`replace_mmsyncbn`, which needs the config.
=======  =================================================================
"""


def replace_mmsyncbn(config: object) -> None:
    """Turn ``MMSyncBN`` into ``SyncBN``, in place, wherever a config has it.

    For runs of one process or on the CPU: ``SyncBN`` can be built there, and
    becomes BN. It has the same parameters and state dict.

    Args:
        config (object): A config, or a list of configs.
    """
    if isinstance(config, dict):
        if config.get('type') == 'MMSyncBN':
            config['type'] = 'SyncBN'
        config = config.values()
    elif not isinstance(config, (list, tuple)):
        return
    for value in config:
        replace_mmsyncbn(value)
