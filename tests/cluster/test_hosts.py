"""Scheduler, workers and client on hosts of their own: the bytes of one machine, or one sentence within two minutes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eravane.core.config import RunConfig, parse_config, to_toml
from eravane.pipeline.batch import run
from eravane.synth import SynthConfig, synthesise
from tests.cluster.hosts import Hosts, address, why_none

pytestmark = pytest.mark.skipif(why_none() is not None, reason=f"needs hosts of their own: {why_none()}")

SCHEDULER, FIRST, SECOND, CLIENT = 1, 2, 3, 4
PATIENCE = 120.0
PROGRAM = "import sys; from eravane.cli import main; sys.argv[0] = 'eravane'; main()"
SETTINGS = {
    "data": {"feature_sets": ["small", "all"]},
    "time": {"loop_start": 32},
    "zoo": {"learner": "xgboost", "trees": 150, "fold_eras": 10, "folds": 2, "minimum_eras": 2},
    "selection": {"most": 3, "minimum_corr": -1.0},
    "gate": {"warmup": 8, "seeds": 1, "steps": 2, "refit_every": 20},
    "loop": {"every": 30, "leaves_every": 30},
    "compute": {"device": "cpu"},
}


class Farm:
    """Four hosts, a dataset and a configuration.

    Args:
        hosts: scheduler, two workers and client, in this order.
        folder: with `data` and `run.toml`; also the caches and runs.
    """

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts, self.folder = hosts, folder
        self.cache = folder / "cache"
        self.cache.mkdir()

    def scheduler(self) -> subprocess.Popen[bytes]:
        command = ["-m", "distributed.cli.dask_scheduler", "--port", "8786", "--no-dashboard"]
        started = self.hosts.start(SCHEDULER, command)
        self.hosts.await_line(SCHEDULER, "Scheduler at", 60)
        return started

    def worker(self, host: int, *more: str, **how: object) -> subprocess.Popen[bytes]:
        command = ["-m", "distributed.cli.dask_worker", f"tcp://{address(SCHEDULER)}:8786", "--no-nanny", *more]
        worker = [*command, "--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder / f"local{host}")]
        started = self.hosts.start(host, worker, **how)  # type: ignore[arg-type]
        self.hosts.await_line(host, "Registered to", 60)
        return started

    def run(self, config: Path, out: str = "run") -> subprocess.Popen[bytes]:
        command = ["-c", PROGRAM, "run", str(self.folder / "data"), "--config", str(config)]
        places = ["--out", str(self.folder / out), "--cache", str(self.cache)]
        return self.hosts.start(CLIENT, [*command, *places, "--scheduler", f"tcp://{address(SCHEDULER)}:8786"])

    def ends(self, client: subprocess.Popen[bytes], seconds: float = PATIENCE) -> tuple[int, str]:
        """Exit code and last line of the client, which must end in time."""
        code = client.wait(timeout=seconds)
        return code, self.hosts.log(CLIENT).read_text().strip().splitlines()[-1]


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("live_predictions.csv", "predictions.parquet")}


def write(folder: Path, config: RunConfig) -> Path:
    path = folder / "run.toml"
    path.write_text(to_toml(config))
    return path


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = SynthConfig(main_target="target_ender_20", eras=48, rows=50, features=24, groups=4, seed=3, snr=0.5)
    synthesise(tmp_path / "data", made)
    with Hosts(4, tmp_path) as hosts:
        yield Farm(hosts, tmp_path)


def test_a_worker_without_the_store_is_refused_by_host_before_training(farm: Farm) -> None:
    farm.scheduler()
    farm.worker(FIRST)
    farm.worker(SECOND, without=farm.cache)
    code, line = farm.ends(farm.run(write(farm.folder, parse_config(SETTINGS))))
    assert code == 1
    assert f"worker tcp://{address(SECOND)}:" in line
    assert "on host host3 cannot train: the store" in line
    assert "is not there, or damaged on it" in line
    assert not list(farm.cache.glob("boosters/**/*.ubj"))


def _kill(farm: Farm, worker: subprocess.Popen[bytes]) -> None:
    worker.kill()


def _cut(farm: Farm, worker: subprocess.Popen[bytes]) -> None:
    farm.hosts.cut(SECOND)


def _stop(farm: Farm, worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGSTOP)


def _nothing(farm: Farm, worker: subprocess.Popen[bytes]) -> None:
    return


@pytest.mark.full
@pytest.mark.parametrize("harm", [_nothing, _kill, _cut, _stop], ids=["nothing", "killed", "cut off", "frozen"])
def test_whatever_happens_to_a_worker_the_bytes_are_those_of_one_machine(
    harm: Callable[[Farm, subprocess.Popen[bytes]], None], farm: Farm
) -> None:
    config = parse_config(SETTINGS)
    alone = results(run(farm.folder / "data", config, farm.folder / "alone", cache=farm.folder / "own").path)
    farm.scheduler()
    farm.worker(FIRST)
    worker = farm.worker(SECOND)
    started = time.monotonic()
    client = farm.run(write(farm.folder, config))
    farm.hosts.await_line(CLIENT, "zoo ", PATIENCE)
    harm(farm, worker)
    code, line = farm.ends(client, 2 * PATIENCE)
    assert code == 0, line
    assert results(farm.folder / "run") == alone
    assert "Traceback" not in farm.hosts.log(CLIENT).read_text()
    assert time.monotonic() - started < 2 * PATIENCE


@pytest.mark.full
def test_a_worker_that_joins_late_does_the_work(farm: Farm) -> None:
    farm.scheduler()
    client = farm.run(write(farm.folder, parse_config(SETTINGS)))
    time.sleep(20)
    assert client.poll() is None
    farm.worker(FIRST)
    assert farm.ends(client)[0] == 0


@pytest.mark.full
def test_a_scheduler_that_is_cut_off_ends_in_a_sentence(farm: Farm) -> None:
    farm.scheduler()
    farm.worker(FIRST)
    client = farm.run(write(farm.folder, parse_config(SETTINGS)))
    farm.hosts.await_line(CLIENT, "zoo ", PATIENCE)
    farm.hosts.cut(SCHEDULER)
    code, line = farm.ends(client)
    assert code == 1
    assert f"the Dask scheduler at tcp://{address(SCHEDULER)}:8786 " in line
    assert "--resume" in line


def _other_eravane(folder: Path) -> None:
    (folder / "eravane-9.9.9.dist-info").mkdir()
    (folder / "eravane-9.9.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: eravane\nVersion: 9.9.9\n"
    )


def _other_python(folder: Path) -> None:
    planted = 'v.get_system_info = lambda: {**real(), "python": "3.99.1.final.0"}'
    (folder / "sitecustomize.py").write_text(f"import distributed.versions as v\nreal = v.get_system_info\n{planted}\n")


@pytest.mark.full
@pytest.mark.parametrize(
    ("plant", "words"), [(_other_eravane, "has eravane 9.9.9, here it is"), (_other_python, "has Python 3.99, here")]
)
def test_a_worker_of_another_version_is_refused_before_training(
    plant: Callable[[Path], None], words: str, farm: Farm
) -> None:
    planted = farm.folder / "planted"
    planted.mkdir()
    plant(planted)
    farm.scheduler()
    farm.worker(FIRST)
    farm.worker(SECOND, environment={"PYTHONPATH": ":".join([str(planted), *sys.path])})
    code, line = farm.ends(farm.run(write(farm.folder, parse_config(SETTINGS))))
    assert code == 1
    assert f"worker tcp://{address(SECOND)}:" in line
    assert words in line


@pytest.mark.full
def test_boosters_spread_over_two_hosts_repeat_their_bytes(farm: Farm) -> None:
    changed = {**SETTINGS, "compute": {"device": "cpu", "booster_spans": "cluster"}}
    changed["zoo"] = {**SETTINGS["zoo"], "trees": 5}
    config = write(farm.folder, parse_config(changed))
    farm.scheduler()
    farm.worker(FIRST)
    farm.worker(SECOND)
    found = []
    for place in ("one", "two"):
        farm.cache = farm.folder / f"cache-{place}"
        farm.cache.mkdir()
        assert farm.ends(farm.run(config, place), 3 * PATIENCE)[0] == 0
        found.append(results(farm.folder / place))
    assert found[0] == found[1]
