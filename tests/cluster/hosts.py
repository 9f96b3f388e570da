"""Hosts of their own on one machine: network namespaces with a switch between them, and mounts that each sees alone."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any


def why_none() -> str | None:
    """Why this machine cannot make such hosts; None where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "unshare", "mount", "hostname") if shutil.which(tool) is None]
    if missing:
        return f"there is no {missing[0]} here"
    name = f"ev{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return None if made.returncode == 0 else "network namespaces are not allowed here"


class Hosts:
    """Namespaces named after their place, at 10.0.0.1 and on, each on a port of one switch.

    Args:
        count: how many.
        logs: folder for what their programs write.
    """

    def __init__(self, count: int, logs: Path) -> None:
        self._prefix, self._count, self._logs = f"ev{os.getpid()}", count, logs
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Hosts:
        self._ip("netns", "add", self._name("s"))
        self._ip("-n", self._name("s"), "link", "add", "switch", "type", "bridge")
        self._ip("-n", self._name("s"), "link", "set", "switch", "up")
        for host in range(1, self._count + 1):
            name, switch = self._name(host), self._name("s")
            self._ip("netns", "add", name)
            pair = ("link", "add", "eth", "netns", name, "type", "veth", "peer", "name", f"port{host}")
            self._ip(*pair, "netns", switch)
            self._ip("-n", switch, "link", "set", f"port{host}", "master", "switch", "up")
            for link in ("lo", "eth"):
                self._ip("-n", name, "link", "set", link, "up")
            self._ip("-n", name, "address", "add", f"{address(host)}/24", "dev", "eth")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.kill()
            process.wait()
        for host in ("s", *range(1, self._count + 1)):
            subprocess.run(["ip", "netns", "delete", self._name(host)], capture_output=True, check=False)

    def start(
        self,
        host: int,
        command: Sequence[str],
        *,
        without: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host, with its output in `log(host)`.

        Args:
            host: from 1 on.
            command: run by this interpreter.
            without: a folder that is empty on this host.
            environment: further variables.
        """
        program = shlex.join([sys.executable, *command])
        hide = f"mount -t tmpfs none {shlex.quote(str(without))} && " if without else ""
        inside = f"hostname host{host} && {hide}exec {program}"
        with self.log(host).open("ab") as log:
            process = self._popen(
                ["ip", "netns", "exec", self._name(host), "unshare", "--uts", "sh", "-c", inside],
                log,
                environment or {},
            )
        self._started.append(process)
        return process

    def cut(self, host: int) -> None:
        """Pull a host's cable out of the switch."""
        self._ip("-n", self._name("s"), "link", "set", f"port{host}", "down")

    def log(self, host: int) -> Path:
        """What the programs of a host wrote."""
        return self._logs / f"host{host}.log"

    def await_line(self, host: int, text: str, seconds: float) -> None:
        """Wait until a host's programs have written a text."""
        until = time.monotonic() + seconds
        while text not in self.log(host).read_text(errors="replace"):
            assert time.monotonic() < until, f"no {text!r}: {self.log(host).read_text(errors='replace')[-2000:]}"
            time.sleep(0.1)

    def _popen(self, command: Sequence[str], log: IO[bytes], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([entry for entry in sys.path if entry])
        found: dict[str, Any] = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
        return subprocess.Popen(command, env={**found, **environment}, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _name(self, host: int | str) -> str:
        return f"{self._prefix}-{host}"

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


def address(host: int) -> str:
    """The address of a host on the switch."""
    return f"10.0.0.{host}"
