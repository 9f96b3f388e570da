"""Environments like those of the tournament's images, built once by pip, in which an exported model is tried."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from eravane.core.config import digest_of
from eravane.core.errors import RunError
from eravane.core.files import exclusive

BUILD_S = 1200.0


@dataclass(frozen=True)
class Environment:
    """Packages that an image pins: a name for people, and pip's requirements."""

    name: str
    requirements: tuple[str, ...]


# The oldest and the newest XGBoost that the images allow (>=2.1.4,<3.1), under the pandas of the older images and of
# that for Python 3.14 (numerai/numerai-predict, 2026-07). The CPU build of XGBoost holds the same predictor.
ENVIRONMENTS = tuple(
    Environment(f"{pandas}, {age} XGBoost", (f"{pandas.replace(' ', '==')}.*", f"xgboost-cpu=={version}"))
    for pandas in ("pandas 2.3", "pandas 3")
    for age, version in (("oldest", "2.1.4"), ("newest", "3.0.*"))
)
ALWAYS = ("numpy>=2", "pyarrow", "scipy", "cloudpickle>=3.1")


def interpreter(environment: Environment, cache: Path) -> Path:
    """The Python of an environment, built in the cache where it is not there yet.

    Raises:
        RunError: pip cannot build it; its last words are in the message.
    """
    requirements = [*environment.requirements, *ALWAYS]
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / "environments" / digest_of([minor, requirements])
    folder.mkdir(parents=True, exist_ok=True)
    python, done = folder / "venv" / "bin" / "python", folder / "done"
    with exclusive(folder):
        if not done.exists():
            shutil.rmtree(folder / "venv", ignore_errors=True)
            venv.create(folder / "venv", with_pip=True)
            _install(python, requirements, environment.name)
            done.touch()
    return python


def _install(python: Path, requirements: list[str], name: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    try:
        built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_S)
        words = built.stderr.strip().splitlines()[-1:]
        failed = bool(built.returncode)
    except subprocess.TimeoutExpired:
        failed, words = True, [f"pip took more than {BUILD_S:.0f} s"]
    if failed:
        raise RunError(
            f"the environment with {name} cannot be built ({words[0] if words else 'no message'}); it needs a package "
            "index, and the versions for this Python; --check without --pinned tries the present interpreter alone"
        )
