"""Everything that can be proved on a GPU: checks, measurements, predictions, for one short visit (`gpu --help`).

All steps run in one process, in the order of a plan or of `--only`, within a budget of seconds; the report is written
again after every step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu_report import markdown
from benchmarks.gpu_steps import PLANS, START_SECONDS, STEPS, Sizes, Step, step_named
from benchmarks.harness import environment, say

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".gpu-check"
# Where a wheel keeps modules that it does not keep at its top.
_DATA = re.compile(r"^[^/]+\.data/(?:purelib|platlib)/")


@dataclass
class Visit:
    """One call: what was asked for, where findings go, and the process that finds them.

    Attributes:
        sizes: how large the work is.
        place: "gpu", or "stand-in" for the CPU in its place.
        state: folder of the process's log and of what steps leave.
        report: the JSON report; a Markdown one lies beside it.
        facts: of the machine.
        paths: folders of modules beside the environment's.
    """

    sizes: Sizes
    place: str
    state: Path
    report: Path
    facts: dict[str, Any]
    paths: tuple[str, ...] = ()
    worker: subprocess.Popen[str] | None = None
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the process: works from a checkout that was never installed."""
        inherited = os.environ.get("PYTHONPATH", "")
        paths = [*self.paths, *(str(ROOT / part) for part in ("engine", "kernels", ".")), inherited]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_WAIT_POLICY": "passive"}

    def keep(self, steps: Sequence[Step]) -> None:
        """Write both reports as they stand; a kill leaves the old ones or the new ones."""
        for step in steps:
            entry = self.found.setdefault(step.name, {"step": step.name, "status": "not reached", "reason": "to come"})
            entry |= {"would": step.what, "expected": step.seconds(self.sizes)}
        entries = list(self.found.values())
        content = {"environment": self.facts, "steps": entries}
        self.report.parent.mkdir(parents=True, exist_ok=True)
        texts = (json.dumps(content, indent=1), markdown(self.facts, entries))
        for path, text in zip((self.report, self.report.with_suffix(".md")), texts, strict=True):
            part = path.with_name(path.name + ".part")
            part.write_text(text + "\n", encoding="utf-8")
            part.replace(path)

    def perform(self, step: Step, limit: float) -> dict[str, Any]:
        """Have the process do a step; it is ended where the step does not end, and another one started for the next."""
        path = self.state / f"{step.name}.json"
        path.unlink(missing_ok=True)
        if self.worker is None or self.worker.poll() is not None:
            self._start()
        assert self.worker is not None
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.worker.stdin.write(step.name + "\n")
            self.worker.stdin.flush()
        ready, _, _ = select.select([self.worker.stdout], [], [], limit)
        answered = bool(ready) and self.worker.stdout.readline().strip() == step.name
        if not ready:
            self.end()
            return {"step": step.name, "status": "failed", "reason": f"no end after {limit:.0f} s; see {self._log}"}
        if not answered:
            code = self.worker.wait()
            self.end()
            last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
            return {"step": step.name, "status": "failed", "reason": f"ended with {code}: {' / '.join(last)}"}
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    @property
    def _log(self) -> Path:
        return self.state / "log"

    def _start(self) -> None:
        call = [sys.executable, "-m", "benchmarks.gpu_worker", self.sizes, self.place, str(self.state)]
        with self._log.open("a", encoding="utf-8") as log:
            self.worker = subprocess.Popen(
                call, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        """End the process and everything it started."""
        if self.worker is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.worker.pid, signal.SIGKILL)
            self.worker.wait()
            self.worker = None


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command line of the check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="smaller data (the default)")
    sizes.add_argument("--full", action="store_true", help="the size of v5.3")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", choices=PLANS, help="the steps of a visit, in order, within its budget")
    names = [step.name for step in STEPS]
    what.add_argument("--only", metavar="STEP", nargs="+", choices=names, help="these steps, in this order")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no step that is expected to end later")
    parser.add_argument("--fresh", action="store_true", help="forget what steps found before")
    parser.add_argument("--stand-in", action="store_true", help="the CPU in place of a GPU, on sizes of no meaning")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="install the wheels of DIR beside the state first")
    parser.add_argument("--state", type=Path, default=STATE, metavar="DIR", help=f"logs (default {STATE.name})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the report (default report.json in the state)")
    asked = parser.parse_args(arguments)
    if asked.budget is not None and asked.budget <= 0:
        parser.error(f"--budget must be above 0, given {asked.budget:g}")
    return asked


def command(arguments: Sequence[str]) -> int:
    """Run the check; 0 unless a step failed."""
    begin = time.monotonic()
    asked = parse(arguments)
    sizes: Sizes = "tiny" if asked.stand_in else "full" if asked.full else "quick"
    asked.state.mkdir(parents=True, exist_ok=True)
    names = asked.only or (PLANS[asked.plan].steps if asked.plan else [step.name for step in STEPS])
    budget = asked.budget or (PLANS[asked.plan].budget if asked.plan else None)
    steps = [step_named(name) for name in dict.fromkeys(names)]
    facts = environment("gpu", quick=sizes != "full", threads=1)
    facts |= {"what": f"gpu check, {sizes}", "plan": asked.plan or "", "budget": f"{budget:.0f} s" if budget else ""}
    paths = (install(asked.wheels, asked.state / "site"),) if asked.wheels else ()
    report = asked.json or asked.state / "report.json"
    visit = Visit(sizes, "stand-in" if asked.stand_in else "gpu", asked.state, report, facts, paths)
    if not asked.fresh:
        visit.found = known_of(report, facts)
    of = f" of {budget:.0f}" if budget else ""
    say(f"{len(steps)} steps, expected to take {expected(steps, sizes):.0f} s{of}")
    try:
        carry_out(visit, steps, begin, budget, again=set(asked.only or ()))
    finally:
        visit.end()
    print(report.with_suffix(".md").read_text(encoding="utf-8"))
    say(f"wrote {report} after {time.monotonic() - begin:.0f} s")
    return int(any(visit.found[step.name]["status"] == "failed" for step in steps))


def expected(steps: Sequence[Step], sizes: Sizes) -> float:
    """Seconds that steps are expected to take, the start of their process included."""
    return START_SECONDS + sum(step.seconds(sizes) for step in steps)


def carry_out(visit: Visit, steps: Sequence[Step], begin: float, budget: float | None, again: set[str]) -> None:
    """Do the steps; what is done or has failed is kept, unless it is asked for by name."""
    visit.keep(steps)
    for step in steps:
        if visit.found[step.name]["status"] in ("done", "failed") and step.name not in again:
            say(f"{step.name}: {visit.found[step.name]['status']} before")
            continue
        left = None if budget is None else budget - (time.monotonic() - begin)
        if left is not None and left < step.seconds(visit.sizes):
            reason = f"expected to take {step.seconds(visit.sizes):.0f} s, {max(left, 0.0):.0f} s were left"
            visit.found[step.name] = {"step": step.name, "status": "not reached", "reason": reason}
        else:
            limit = step.limit(visit.sizes) if left is None else min(step.limit(visit.sizes), left)
            say(f"{step.name}: {step.what} (expected {step.seconds(visit.sizes):.0f} s)")
            visit.found[step.name] = visit.perform(step, limit)
        result = visit.found[step.name]
        say(f"{step.name}: {result['status']} {result.get('reason', '')}".rstrip())
        visit.keep(steps)


def known_of(report: Path, facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Results of earlier steps, by the same code at the same sizes."""
    try:
        known = json.loads(report.read_text(encoding="utf-8"))
        same = all(known["environment"].get(name) == facts.get(name) for name in ("commit", "what"))
        found = {entry["step"]: entry for entry in known["steps"]} if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if not same:
        say(f"{report} is of other code or sizes: starting over")
    return found


def install(wheels: Path, target: Path) -> str:
    """Unpack wheels into a folder of their own: no network, no pip, and the environment stays as it is."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        sys.exit(f"there are no wheels in {wheels}")
    mark, names = target / "unpacked", [file.name for file in files]
    if mark.is_file() and mark.read_text(encoding="utf-8").split() == names:
        return str(target)
    shutil.rmtree(target, ignore_errors=True)
    for file in files:
        try:
            with zipfile.ZipFile(file) as wheel:
                for entry in wheel.infolist():
                    entry.filename = _DATA.sub("", entry.filename)
                    wheel.extract(entry, target)
        except (zipfile.BadZipFile, OSError) as error:
            sys.exit(f"{file} is no wheel that can be unpacked: {error}")
    mark.write_text("\n".join(names), encoding="utf-8")
    return str(target)
