"""The manifests under `deploy/`: scripts that parse, and Kubernetes objects that name what the others name."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_slurm_script_parses_and_asks_for_its_arguments() -> None:
    script = str(DEPLOY / "slurm.sh")
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run(["bash", script, "data"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: sbatch slurm.sh DATA CONFIG RUN CACHE\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_slurm_script_starts_scheduler_workers_and_run(tmp_path: Path) -> None:
    """With stand-ins for the three programs that note how they were called."""
    bin_folder, log = tmp_path / "bin", tmp_path / "log"
    bin_folder.mkdir()
    note = f'#!/bin/bash\necho "$(basename "$0") $*" >> {log}\n'
    contact = 'for word in "$@"; do [ "$before" = --scheduler-file ] && echo \'{"address": "tcp://h:1"}\' > "$word"; '
    programs = {"dask": note + contact + "before=$word; done\nsleep 30 &\nwait $!\n", "srun": note, "eravane": note}
    for name, text in programs.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").touch()
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4"}
    command = ["bash", DEPLOY / "slurm.sh", "data", "run.toml", run, tmp_path / "cache"]
    subprocess.run(command, env=environment, check=True, timeout=60)
    lines = log.read_text().splitlines()
    file = tmp_path / "cache" / "scheduler-7.json"
    assert f"dask scheduler --scheduler-file {file} --port 0 --no-dashboard" in lines
    assert any(line.startswith("srun dask worker --nworkers 4 --nthreads 1") and str(file) in line for line in lines)
    assert any(line.endswith("--scheduler tcp://h:1 --resume") for line in lines if line.startswith("eravane run data"))
    assert not file.exists()


def _objects() -> dict[str, Any]:
    return {found["kind"]: found for found in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def test_the_kubernetes_objects_fit_together() -> None:
    found = _objects()
    claim, cluster, job = (found[kind] for kind in ("PersistentVolumeClaim", "DaskCluster", "Job"))
    workers, client = cluster["spec"]["worker"]["spec"], job["spec"]["template"]["spec"]
    for pod in (workers, client):
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "emptyDir" not in volume]
        assert claims == [claim["metadata"]["name"]]
        paths = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert (
            paths["shared"] == "/srv/eravane"
        )  # data do not travel: every worker sees the store under the client's path
        memory = pod["containers"][0]["resources"]
        assert memory["requests"]["memory"] == memory["limits"]["memory"]
    script = client["containers"][0]["args"][0]
    assert f"tcp://{cluster['metadata']['name']}-scheduler:8786" in script
    assert cluster["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] == cluster["metadata"]["name"]


def test_the_settings_of_jobqueue_are_a_worker_with_one_thread() -> None:
    slurm = yaml.safe_load((DEPLOY / "jobqueue.yaml").read_text())["jobqueue"]["slurm"]
    assert (slurm["cores"], slurm["processes"]) == (1, 1)
