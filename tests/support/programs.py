"""Python programs that tests start, forked from one that has imported eravane and its libraries.

Importing them takes a program seconds. Tests of imports, of another engine or of memory start theirs by `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

# All tests of a worker share this server; another list of modules would have no effect where it has started.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["distributed.nanny", "eravane.cli", "eravane.pipeline.week", "sklearn.linear_model"])


class Program:
    """A Python program that runs.

    Args:
        arguments: what follows `python`: `-c CODE` or a file, and the program's own arguments.
        folder: the working directory (None: that of the tests).
        environment: all of its environment variables (None: those of the tests).
    """

    def __init__(
        self, arguments: Sequence[object], folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self._outputs = tempfile.TemporaryDirectory()
        place = str(folder or Path.cwd()), dict(environment or os.environ), self._outputs.name
        self._process = PROCESSES.Process(target=_begin, args=(self._arguments, *place))
        self._process.start()

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.exitcode

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGINT)

    def finish(self, timeout: float = 240) -> CompletedProcess[str]:
        """Wait for its end, and return its status and what it wrote.

        Raises:
            TimeoutExpired: it runs for longer than that many seconds, and was killed.
        """
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            self._process.kill()
            raise TimeoutExpired(self._arguments, timeout)
        with self._outputs as outputs:
            written, errors = (Path(outputs, name).read_text() for name in ("1", "2"))
        return CompletedProcess(self._arguments, status, written, errors)


def run(
    arguments: Sequence[object], folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """A program's status and output after its end, as of `subprocess.run`; see `Program`."""
    return Program(arguments, folder, environment).finish()


def _begin(arguments: list[str], folder: str, environment: dict[str, str], outputs: str) -> None:
    for number in (1, 2):
        os.dup2(os.open(f"{outputs}/{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    first, *rest = arguments
    if first == "-c":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        code, sys.argv = rest[0], ["-c", *rest[1:]]
        exec(compile(code, "<string>", "exec"), main.__dict__)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")
