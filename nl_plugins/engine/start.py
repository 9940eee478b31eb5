"""The start of a run, which lasts until its first iteration is done.

If it fails, a user sees the error alone, and nothing of the run is left.
"""

import os
import shutil
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.utils import ManagerMixin
from torch.cuda import OutOfMemoryError

from ..errors import RunError

#: When this process began, in seconds.
_LOADED = time.time()
#: Errors that a tool prints as one line.
ONE_LINE = (RunError, OutOfMemoryError, KeyboardInterrupt)


def is_first_process() -> bool:
    """Whether this process has the rank 0, also before it is initialized."""
    names = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    return next((os.environ[name] for name in names if name in os.environ), '0') == '0'


class Start(Hook):
    """A context in which a run starts, and the hook that tells when it has.

    The log goes to its file at once, and to the terminal when the start has
    succeeded. If the start fails, the folder of the run is removed, with the work
    directory if it is new and empty, and the copy of an earlier config is back.
    The log of an unexpected error, which has a traceback, is shown.

    Args:
        cfg (Config): Config of the run.
    """

    def __init__(self, cfg: Config) -> None:
        self._work_dir = Path(os.path.abspath(cfg.work_dir))
        self._copy = self._work_dir / Path(cfg.filename or '').name
        self._earlier_copy = self._copy.read_bytes() if self._copy.is_file() else None
        self._earlier = set(self._work_dir.glob('*'))
        self._new = [
            path
            for path in (self._work_dir, *self._work_dir.parents)
            if not path.exists()
        ]
        if (
            cfg.launcher != 'none'  # another process may have made it
            and self._work_dir.exists()
            and self._work_dir.stat().st_ctime > _LOADED
        ):
            self._new.append(self._work_dir)
        self._output = _Output(sys.stdout)
        self._redirection = redirect_stdout(self._output)

    def __enter__(self) -> 'Start':
        if is_first_process():
            print(f'Starting, in {os.path.relpath(self._work_dir)}', flush=True)
        self._redirection.__enter__()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._redirection.__exit__(error_type, error, traceback)
        has_started = self._output.kept is None
        if not isinstance(error, ONE_LINE):
            self._output.release()
        if error is not None and not has_started and is_first_process():
            self._remove()

    def _after_iter(self, *args: Any, **kwargs: Any) -> None:
        self._output.release()

    def _remove(self) -> None:
        """Remove what the start has written, unless there is more beside it."""
        logger = MMLogger.get_current_instance()
        folder = Path(logger.log_file or self._work_dir).parent
        if folder.parent == self._work_dir and folder not in self._earlier:
            files = [path for path in folder.rglob('*') if path.is_file()]
            if any(f.suffix != '.log' and f.name != 'config.py' for f in files):
                return
            shutil.rmtree(folder)
            _forget(logger.instance_name)
            if self._earlier_copy is not None:
                self._copy.write_bytes(self._earlier_copy)
            elif self._copy.is_file():
                self._copy.unlink()
        for path in self._new:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _forget(name: str) -> None:
    """Make mmengine forget the logger, visualizer and so on of a run.

    A start of the same name and second would write to their removed files.
    """
    managers: list[Any] = [ManagerMixin]
    for manager in managers:
        managers += manager.__subclasses__()
        manager._instance_dict.pop(name, None)


class _Output:
    """A stream that keeps what this process writes to it until it is released."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.kept: list[str] | None = []
        self._process = os.getpid()

    def write(self, text: str) -> int:
        # the workers of a data loader are forks, which nobody would release
        if self.kept is None or os.getpid() != self._process:
            return self.stream.write(text)
        self.kept.append(text)
        return len(text)

    def release(self) -> None:
        if self.kept is not None:
            kept, self.kept = self.kept, None
            self.stream.write(''.join(kept))
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
