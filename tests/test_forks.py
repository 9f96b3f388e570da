"""Programs in forks end, print and are interrupted as those that `subprocess` starts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import forks

INTERRUPTED = "import time, pathlib\npathlib.Path('ready').touch()\ntry: time.sleep(60)\nexcept KeyboardInterrupt: "
THREADS = """
import numpy as np, torch, xgboost
from eravane_kernels import cpu
torch.set_num_threads(2)
rows = np.random.default_rng(0).random((20_000, 8), dtype=np.float32)
print(torch.from_numpy(rows).T.matmul(torch.from_numpy(rows)).shape, (rows.T @ rows).shape)
print(len(xgboost.train({"nthread": 2, "max_depth": 2}, xgboost.DMatrix(rows, rows[:, 0], nthread=2), 2).get_dump()))
"""


@pytest.mark.parametrize(
    "code",
    [
        "print('a line'); import sys; print('another', file=sys.stderr)",
        "import sys; sys.exit()",
        "import sys; sys.exit(3)",
        "import sys; sys.exit(300)",
        "import sys; sys.exit('a sentence')",
        "def f(): return 1 / 0\nf()",
        "no code",
        "raise KeyboardInterrupt",
        "import os, signal; print('unwritten'); os.kill(os.getpid(), signal.SIGKILL)",
        "import os; print('unwritten'); os._exit(4)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import sys; print(sys.argv, __name__, sys.modules['__main__'].__dict__ is globals(), sys.stdin.read() == '')",
        "import os, sys; print(os.getcwd(), os.environ['ONE'], 'HOME' in os.environ, sys.stdout.isatty())",
        "import atexit, threading, time; atexit.register(print, 'at the end')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('a thread'))).start()",
        "import os; os.system('echo from a shell'); print('and after')",
        "class A: pass\nimport pickle; print(pickle.loads(pickle.dumps(A())).__class__.__module__, 'é€')",
        "import signal; print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))",
        "print('x' * 200_000)",
    ],
)
def test_a_fork_ends_as_a_new_interpreter_does(code: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"ONE": "a value"}
    arguments = ("one", "two three")
    expected = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    found = forks.run(code, *arguments, cwd=tmp_path, env=environment)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    assert _plain(found.stderr) == _plain(expected.stderr)
    assert Path.cwd() != tmp_path


def _plain(errors: str) -> str:
    """Without the lines of the program, which Python shows from 3.13 on where it was started with them."""
    return re.sub(r"^    .*\n|0x\w+", "", errors, flags=re.MULTILINE)


@pytest.mark.parametrize("then", ["print('stopped')", "raise"])
def test_a_fork_is_interrupted(then: str, tmp_path: Path) -> None:
    with forks.Child(INTERRUPTED + then, cwd=tmp_path) as child:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        assert child.returncode is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.communicate(timeout=0.05)
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate()
    child.send_signal(signal.SIGINT)  # it has ended
    expected = (0, "stopped\n", False) if then != "raise" else (-signal.SIGINT, "", True)
    assert (child.returncode, out, "KeyboardInterrupt" in errors) == expected


def test_a_fork_that_takes_too_long_is_killed_and_one_that_fails_is_named(tmp_path: Path) -> None:
    sleeping = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(subprocess.TimeoutExpired):
        forks.run(sleeping, timeout=2)
    if (tmp_path / "pid").exists():  # it is not where two seconds did not start it
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)
    with pytest.raises(subprocess.CalledProcessError):
        forks.run("import sys; sys.exit(2)", check=True)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "PYTHONHASHSEED"])
def test_what_only_a_new_interpreter_reads_is_refused(name: str) -> None:
    found = forks.run("print('runs')", env={**os.environ, name: "7"})
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith(f"ValueError: {name}: ")


def test_threads_start_in_a_fork() -> None:
    """What is imported before a fork has no pool of threads, for which the fork would wait forever."""
    found = forks.run(THREADS, timeout=300)
    assert found.stdout == "torch.Size([8, 8]) (8, 8)\n2\n", found.stderr
