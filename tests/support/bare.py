"""Python programs that tests start where eravane is absent, forked from one that has imported what a container has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

FLAGS = ["-I", "-W", "ignore", "-c"]
SERVER = """
import gc, json, os, sys, traceback
import numpy, pandas, pyarrow.parquet, xgboost
assert not {"eravane", "eravane_kernels", "torch"} & set(sys.modules)
gc.freeze()
for line in sys.stdin:
    code, arguments, outputs = json.loads(line)
    child = os.fork()
    if not child:
        for number in (1, 2):
            os.dup2(os.open(f"{outputs}/{number}", os.O_WRONLY | os.O_CREAT), number)
        sys.argv = ["-c", *arguments]
        try:
            exec(code, {"__name__": "__main__"})
            status = 0
        except SystemExit as ended:
            print(ended.code, file=sys.stderr)
            status = 1
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        os._exit(status)  # without a look at everything that is imported
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Interpreter:
    """Runs the programs that `subprocess.run` would start by this Python and `FLAGS`, without starting one."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, command: Sequence[str], **_: Any) -> CompletedProcess[str]:
        """A program's status and output after its end, as of `subprocess.run`."""
        python, *flags = command[: 1 + len(FLAGS)]
        assert (python, flags) == (sys.executable, FLAGS)
        code, *arguments = command[1 + len(FLAGS) :]
        assert self._server.stdin
        assert self._server.stdout
        with tempfile.TemporaryDirectory() as outputs:
            print(json.dumps([code, arguments, outputs]), file=self._server.stdin, flush=True)
            status = int(self._server.stdout.readline())
            written, errors = (Path(outputs, name).read_text() for name in ("1", "2"))
        return CompletedProcess(list(command), status, written, errors)


@contextmanager
def interpreter() -> Iterator[Interpreter]:
    """An interpreter that has imported NumPy, pandas, Arrow and XGBoost, and nothing of eravane."""
    command = [sys.executable, *FLAGS, SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=os.sep) as server:
        yield Interpreter(server)
