"""Writes the runs of one release that later releases are held to; run with the release that is to be kept.

    PYTHONPATH=engine:kernels:. python -m tests.runstate.formats.make FOLDER

Nothing but the command line of the release is used, so that this file makes the runs of any release. FOLDER gets

- `source/`: a made dataset, from which `download.py` cuts the files of any week,
- `NAME.tar.xz`: the run folder after `eravane run` on the first week (`run/`), the store that it read (`store/`), and
  what the release's own weekly steps came to: `week/ERA/` holds the live files of each week, `last/` the results at
  the end. Absolute paths in the run folder start with `@HERE@`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.support.download import FIRST_WEEK, HERE, LAST, LIVE, WEEKS, Download

COMMON = """
[data]
feature_sets = ["small", "all"]
target = "target_ender_20"

[time]
loop_start = 32

[zoo]
learner = "{learner}"
trees = 3
fold_eras = 10
folds = 2
minimum_eras = 2
params = {{ max_depth = 2, eta = 0.3 }}
{zoo}

[selection]
most = 3
minimum_corr = -1.0

[gate]
warmup = 8
seeds = 2
steps = 6
refit_every = 6
replay = 16
{gate}

[loop]
every = 4
{loop}

[compute]
device = "cpu"
{more}
"""
# Every update rule and learner, the inputs from outside, and keys whose meaning is likely to change.
RUNS = {
    "defaults": {"learner": "xgboost", "zoo": "", "gate": "", "loop": "leaves_every = 2", "more": ""},
    "levels": {
        "learner": "levels",
        "zoo": 'benchmarks = ["v53_lgbm_ender20"]',
        "gate": 'objective = "payout"',
        "loop": 'update = "append"\nappend_trees = 2\nappend_window = 10\nblocks = 3',
        "more": (
            '[prepare]\nmissing_eras = "impute"\nfrozen = true\n\n'
            '[postprocess]\nneutralize = "small"\nproportion = 0.25'
        ),
    },
    "leaves": {
        "learner": "xgboost",
        "zoo": "",
        "gate": 'reward = "dynamos"\nexperts = ["change_points"]\nmax_active = 2',
        "loop": 'update = "leaves"\nleaves_every = 3\nleaves_half_life = 12.0',
        "more": '[prepare]\nmissing_eras = "impute"\nimpute = "mean"\noutliers = "mad"\nk = 2.0',
    },
    "auto": {
        "learner": "xgboost",
        "zoo": "",
        "gate": 'gates = "topk"\nmax_active = 2',
        "loop": 'update = "auto"\nleaves_every = 2',
        "more": "",
    },
}
SYNTH = """
from eravane.synth import SynthConfig, synthesise
from pathlib import Path
synthesise(Path({out!r}), SynthConfig(eras={eras}, rows=30, features=16, groups=3, seed=5, snr=0.5))
"""


def make(out: Path) -> None:
    """Write the dataset and every run."""
    out.mkdir(parents=True, exist_ok=True)
    source = out / "source"
    eras = FIRST_WEEK + WEEKS + 6
    if not source.exists():
        subprocess.run([sys.executable, "-c", SYNTH.format(out=str(source), eras=eras)], check=True)
    for name, changes in RUNS.items():
        if (out / f"{name}.tar.xz").exists():
            continue
        with tempfile.TemporaryDirectory(prefix="eravane-format-") as scratch:
            _run(Path(scratch), Download(source), COMMON.format(**changes))
            with tarfile.open(out / f"{name}.tar.xz", "w:xz") as archive:
                archive.add(Path(scratch) / "keep", arcname=name, filter=_plain)


def _run(scratch: Path, weeks: Download, config: str) -> None:
    (scratch / "config.toml").write_text(config)
    data, run, cache, keep = (scratch / name for name in ("data", "run", "cache", "keep"))
    weeks.write(data, FIRST_WEEK)
    arguments = ["--config", str(scratch / "config.toml"), "--out", str(run), "--cache", str(cache)]
    _eravane("run", str(data), *arguments)
    store = next((cache / "stores").iterdir())
    shutil.copytree(run, keep / "run", ignore=shutil.ignore_patterns("report.html", "telemetry.parquet"))
    shutil.copytree(store, keep / "store")
    for path in (keep / "run").glob("*.json*"):
        text = path.read_text().replace(str(store), f"{HERE}/store").replace(str(scratch), HERE)
        path.write_text(text)
    _copy(run, keep / "week" / str(FIRST_WEEK), LIVE)
    for last in range(FIRST_WEEK + 1, FIRST_WEEK + WEEKS + 1):
        weeks.write(data, last)
        _eravane("step", str(run), "--data", str(data), "--no-submit", "--cache", str(cache))
        _copy(run, keep / "week" / str(last), LIVE)
    _copy(run, keep / "last", LAST)
    versions = json.loads((run / "manifest.json").read_text())["versions"]
    (keep / "versions.json").write_text(json.dumps(versions, indent=1))


def _eravane(*arguments: str) -> None:
    command = [sys.executable, "-c", "from eravane.cli import main; main()", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    target.mkdir(parents=True)
    for name in names:
        shutil.copyfile(source / name, target / name)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the machine that made it."""
    member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
    return member


if __name__ == "__main__":
    make(Path(sys.argv[1]))
