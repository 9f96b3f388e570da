"""Everything that can be proved on a GPU: checks, measurements, predictions, in resumable steps (`gpu --help`)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_report import markdown, written
from benchmarks.gpu_steps import STEPS, Step
from benchmarks.harness import environment, say

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".gpu-check"
PROBE = "from eravane.backend import why_no_gpu; print(why_no_gpu() or '')"
PROBE_SECONDS = 90
# A quick check begins no step after this many seconds, and ends the one that runs at the next.
QUICK_SECONDS, QUICK_END = 400, 470
LEAST_SECONDS = 20


@dataclass(frozen=True)
class Session:
    """One call: what was asked for, and where steps leave what they found."""

    sizes: str
    state: Path
    paths: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a step's process: works from a checkout that was never installed."""
        inherited = os.environ.get("PYTHONPATH", "")
        paths = [*self.paths, *(str(ROOT / part) for part in ("engine", "kernels", ".")), inherited]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_WAIT_POLICY": "passive"}

    def file(self, step: Step) -> Path:
        """Where a step's findings lie."""
        return self.state / f"{step.name}.json"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command line of the check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="smaller data, under 8 minutes in all (the default)")
    sizes.add_argument("--full", action="store_true", help="the size of v5.3; every step under 5 minutes")
    parser.add_argument("--fresh", action="store_true", help="forget finished steps and start over")
    parser.add_argument("--only", metavar="STEP", nargs="+", choices=[step.name for step in STEPS], help="these steps")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="install the wheels of DIR beside the state first")
    parser.add_argument("--state", type=Path, default=STATE, metavar="DIR", help=f"checkpoints (default {STATE.name})")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR", help="folder of the reports"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the JSON here, without a GPU too")
    return parser.parse_args(arguments)


def command(arguments: Sequence[str]) -> int:
    """Run the check; 0 unless a step failed."""
    asked = parse(arguments)
    sizes = "full" if asked.full else "quick"
    folder = asked.state / sizes
    if asked.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    paths = (_install(asked.wheels, asked.state / "site"),) if asked.wheels else ()
    session = Session(sizes, folder, paths)
    facts = environment("gpu", quick=sizes == "quick", threads=1)
    _forget_other_code(session, facts["commit"])
    reason = why_not(session)
    steps = [step for step in STEPS if not asked.only or step.name in asked.only]
    found = _planned(steps, reason) if reason else _run(session, steps)
    facts |= {"what": f"gpu check, {sizes}", "no gpu": reason}
    print(markdown(facts, found))
    if not reason:
        for path in written(asked.results, facts, found):
            say(f"wrote {path}")
    if asked.json:
        asked.json.write_text(json.dumps({"environment": facts, "steps": found}, indent=1) + "\n", encoding="utf-8")
    return int(any(step["status"] == "failed" for step in found))


def why_not(session: Session) -> str:
    """Why no GPU can be measured here; empty where one can. Asked in another process, which keeps the device free."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], env=session.environment, cwd=ROOT, capture_output=True, text=True,
            timeout=PROBE_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"looking for a GPU took more than {PROBE_SECONDS} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else ""


def _planned(steps: Sequence[Step], reason: str) -> list[dict[str, Any]]:
    """What each step would do, were there a GPU."""
    return [{"step": step.name, "status": "skipped", "reason": reason, "would": step.what} for step in steps]


def _run(session: Session, steps: Sequence[Step]) -> list[dict[str, Any]]:
    begin, found = time.monotonic(), []
    for step in steps:
        known = _finished(session, step)
        passed = time.monotonic() - begin
        if known is not None:
            say(f"{step.name}: finished before")
        elif session.sizes == "quick" and passed > QUICK_SECONDS:
            known = {"step": step.name, "status": "not reached", "reason": "out of time; call again to go on"}
        else:
            left = QUICK_END - passed if session.sizes == "quick" else float(step.limit)
            known = _perform(session, step, max(LEAST_SECONDS, min(step.limit, left)))
        found.append({**known, "would": step.what})
    return found


def _finished(session: Session, step: Step) -> dict[str, Any] | None:
    try:
        known: dict[str, Any] = json.loads(session.file(step).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if known.get("status") == "done" else None


def _perform(session: Session, step: Step, limit: float) -> dict[str, Any]:
    say(f"{step.name}: {step.what} (at most {limit:.0f} s)")
    path, log = session.file(step), session.state / f"{step.name}.log"
    path.unlink(missing_ok=True)
    call = [sys.executable, "-m", "benchmarks.gpu_child", step.name, session.sizes, str(path)]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            call, cwd=ROOT, env=session.environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            return {"step": step.name, "status": "failed", "reason": f"no end after {limit:.0f} s; see {log}"}
        finally:
            _end(process)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        return {"step": step.name, "status": "failed", "reason": f"ended with {process.returncode}: {' / '.join(last)}"}
    say(f"{step.name}: {found['status']} {found.get('reason', '')}".rstrip())
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a step's process and everything it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _install(wheels: Path, target: Path) -> str:
    """Unpack wheels into a folder of their own, without a network and without touching the environment."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        sys.exit(f"there are no wheels in {wheels}")
    call = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
    done = subprocess.run([*call, "--target", str(target), *files], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"pip could not install the wheels of {wheels}:\n{done.stderr.strip()}")
    return str(target)


def _forget_other_code(session: Session, commit: str) -> None:
    """Start over where finished steps were those of another commit."""
    mark = session.state / "commit"
    known = mark.read_text(encoding="utf-8") if mark.is_file() else commit
    if known != commit:
        say(f"finished steps are of commit {known or 'unknown'}: starting over")
        for path in session.state.glob("*.json"):
            path.unlink()
    mark.write_text(commit, encoding="utf-8")
