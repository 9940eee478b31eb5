"""Time and memory of functions.

On a CPU, memory is measured in one process for each function, so that none
uses what another has freed; PyTorch itself counts that of a GPU. Times are
measured in turns in one process: several processes would disturb each other
with threads that wait for work.
"""

import contextlib
import gc
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ..errors import first_line

#: Seconds that a turn takes at least, by repeating what is measured. A GPU is
#: not disturbed by other processes.
_TURN, _GPU_TURN = 0.2, 0.03
#: Makes glibc return freed memory at once, which would count as needed.
_RETURN_MEMORY = dict.fromkeys(
    ('MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_'), str(2**20)
)


class MeasurementError(Exception):
    """What is measured fails; the message is one line."""


def in_a_process(function: Callable, *args: Any) -> Any:
    """Call a function in a new process.

    Args:
        function (Callable): A function of a module.
        args: Its arguments.

    Returns:
        Any: Its result.

    Raises:
        MeasurementError: If it raises anything or is killed.
    """
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        try:
            return pool.submit(_call, function, args).result()
        except BrokenProcessPool:
            raise MeasurementError('the process was killed: out of memory?') from None


def alone(device: str, function: Callable, *args: Any) -> Any:
    """Call a function while nothing else is in the memory of a device.

    On a CPU it is called by :func:`in_a_process`, on a GPU in this process,
    after PyTorch has returned the memory that it keeps.
    """
    if torch.device(device).type != 'cuda':
        return in_a_process(function, *args)
    use_device(device)
    gc.collect()
    torch.cuda.empty_cache()
    return _call(function, args)


def _call(function: Callable, args: tuple) -> Any:
    try:
        return function(*args)
    except Exception as error:  # whatever a model may raise; not all can be pickled
        raise MeasurementError(first_line(error)) from None


@contextlib.contextmanager
def memory_returned() -> Iterator[None]:
    """Start processes that return freed memory to the system at once."""
    before = {key: os.environ.get(key) for key in _RETURN_MEMORY}
    os.environ.update(_RETURN_MEMORY)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def use_device(device: str) -> None:
    """Make a GPU the current one, for synchronization and memory."""
    where = torch.device(device)
    if where.type == 'cuda' and where.index is not None:
        torch.cuda.set_device(where)


def peak_memory(device: str) -> int:
    """Read the largest memory of this process so far.

    Args:
        device (str): Whose memory. On the CPU it is the resident set, as
            Linux counts it.

    Returns:
        int: Bytes.
    """
    if torch.device(device).type == 'cuda':
        return torch.cuda.max_memory_allocated()
    # Not getrusage: a child inherits its parent's maximum.
    status = Path('/proc/self/status').read_text()
    return 1024 * int(re.findall(r'VmHWM:\s+(\d+) kB', status)[0])


def time_in_turns(
    functions: Sequence[Callable[[], object]], repeats: int, longest: float
) -> list[list[float]]:
    """Time several functions one after the other, again and again.

    What else the machine does disturbs all of them alike.

    Args:
        functions (Sequence[Callable]): What is timed.
        repeats (int): Turns.
        longest (float): Seconds after which no more turns start.

    Returns:
        list[list[float]]: Seconds of each in every turn.
    """
    # Warm up, and find out how many calls fill a turn.
    on_gpu = torch.cuda.is_initialized()
    turn = _GPU_TURN if on_gpu else _TURN
    calls = []
    for function in functions:
        seconds = _time(function, 1)
        if on_gpu or seconds < turn:  # a GPU loads its kernels in the first
            seconds = _time(function, 1)
        calls.append(max(1, round(turn / seconds)))
    turns: list[list[float]] = [[] for _ in functions]
    start = time.perf_counter()
    for _ in range(repeats):
        for function, number, times in zip(functions, calls, turns):
            times.append(_time(function, number))
        if time.perf_counter() - start > longest:
            break
    return turns


def _time(function: Callable, calls: int) -> float:
    """Seconds of one of several calls."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls
