"""Runs the tools as commands, without the seconds of importing the toolboxes.

A server process imports them once. Each command is a fork of it, with its own
folder, arguments, environment and output.
"""

import multiprocessing
import os
import runpy
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

TOOLS = Path(__file__).parents[1] / 'tools'
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(
    [
        'nl_plugins.toolboxes',
        'nl_plugins.engine.run',
        'mmdet.models',
        'mmdet.evaluation',
        'mmseg.models',
        'mmseg.evaluation',
        'mmaction.models',
        'mmaction.evaluation',
    ]
)


def _execute(folder: Path, output: Path, arguments: list[str], home: Path) -> None:
    """Run the command in this process, which is a fork."""
    for number in 1, 2:
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    os.environ['TORCH_HOME'] = str(home)
    sys.argv = arguments
    sys.path.insert(0, str(TOOLS))
    runpy.run_path(arguments[0], run_name='__main__')


def start(folder: Path, tool: str, *arguments: object, home: Path) -> BaseProcess:
    """Start a tool in a folder, with pretrained files in ``home``.

    Its output goes to the file ``output.txt`` of that folder.
    """
    command = [str(TOOLS / tool), *map(str, arguments)]
    output = folder / 'output.txt'
    output.unlink(missing_ok=True)
    process = CONTEXT.Process(target=_execute, args=(folder, output, command, home))
    process.start()
    return process


def run(folder: Path, tool: str, *arguments: object, home: Path) -> str:
    """Run a tool to its end and return its output, shown when it fails."""
    process = start(folder, tool, *arguments, home=home)
    process.join()
    output = (folder / 'output.txt').read_text()
    assert process.exitcode == 0, output
    return output
