"""Python programs in forks of one process that has imported the heavy libraries: a child without seconds of imports.

For tests that start a program and look at what it prints, writes and returns. Those that look at the start of the
interpreter itself (what is imported when, PYTHON* variables, limits on memory, another environment) take `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import linecache
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path

import dask
from distributed import LocalCluster

ROOT = Path(__file__).parents[2]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support.preloaded"])
# Read once, when the interpreter or a library starts.
AT_START = ("PYTHON", "OMP_", "OPENBLAS_", "MKL_", "NUMBA_", "LD_")


def start(target: Callable[..., object], *arguments: object) -> BaseProcess:
    """A started process that calls a function of a module; `exitcode`, `join` and `kill` as ever."""
    _serve()
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    return process


def _serve() -> None:
    with contextlib.chdir(ROOT):  # where the server finds the module to load
        ensure_running()


@contextlib.contextmanager
def local_cluster(workers: int) -> Iterator[LocalCluster]:
    """A Dask cluster of this machine, with one thread a worker, whose workers are forks."""
    _serve()
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
    ):
        yield cluster


class Child:
    """What `subprocess.Popen([sys.executable, "-c", code, *arguments])` starts, with stdin empty and text in pipes.

    Leaving the context kills a child that still runs.

    Args:
        code: the program; it runs as `__main__`.
        arguments: `sys.argv[1:]` of the program.
        cwd: folder that it starts in; default the present one.
        env: its whole environment; default the present one. One that differs in what only a new interpreter reads
            ends the child with a ValueError.
    """

    def __init__(
        self, code: str, *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.args = ["-c", code, *map(str, arguments)]
        self._folder = tempfile.TemporaryDirectory(prefix="child-")
        self._streams = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        environment = dict(os.environ if env is None else env)
        self._process = start(_program, self.args, str(cwd or Path.cwd()), environment, self._streams)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._folder.cleanup()

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the number of the signal that ended it, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """As `subprocess.Popen` does: nothing where the child has ended."""
        if self.returncode is None:
            os.kill(self._process.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed to stdout and stderr, when it has ended.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        out, errors = (path.read_text() for path in self._streams)
        return out, errors


def run(
    code: str,
    *arguments: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, ...)` returns."""
    with Child(code, *arguments, cwd=cwd, env=env) as child:
        out, errors = child.communicate(timeout)
        done = subprocess.CompletedProcess(child.args, child.returncode or 0, out, errors)
    if check:
        done.check_returncode()
    return done


def _program(arguments: list[str], folder: str, environment: dict[str, str], streams: list[Path]) -> None:
    """The fork's whole life, which ends as an interpreter does."""
    for number, path in enumerate(streams, 1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=False)  # type: ignore[union-attr]  # the server's may have been a terminal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    before = dict(os.environ)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments[2:]]
    linecache.cache.pop("<string>", None)  # the server's program, from Python 3.13 on
    status = 0
    try:
        changed = [name for name in {*before, *environment} if before.get(name) != environment.get(name)]
        if late := sorted(name for name in changed if name.startswith(AT_START)):
            raise ValueError(f"{', '.join(late)}: read at the start of an interpreter, which a fork has behind it")
        exec(compile(arguments[1], "<string>", "exec"), main.__dict__)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        shown = error.__traceback__ and error.__traceback__.tb_next  # as if this function were not there
        sys.excepthook(type(error), error.with_traceback(shown), shown)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)
