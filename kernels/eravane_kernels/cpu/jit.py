"""Numba, set up once: compiled functions are cached on disk, release the GIL and use one thread."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
HERE = Path(__file__).resolve().parent


def kernel(function: Function) -> Function:
    """Compiles a function in strict floating-point order."""
    return _compiled(function)


def summing(function: Function) -> Function:
    """Compiles a function whose sums may be split over vector lanes; infinities and NaN keep their meaning."""
    return _compiled(function, fastmath={"reassoc"})


def dividing(function: Function) -> Function:
    """Compiles a function whose divisions by zero give infinities, as NumPy's do, so that its loops are vectors."""
    return _compiled(function, error_model="numpy")


def _compiled(function: Function, **options: object) -> Function:
    folder = cache_folder()
    with _cached_in(folder):
        return cast(Function, numba.njit(cache=bool(folder), nogil=True, **options)(function))


@cache
def cache_folder() -> str:
    """Folder of compiled functions; empty where none can be written, and all are compiled at each start.

    Numba compiles a function again when its own file changes, not when a function of another file that it calls does:
    after an upgrade, results would be those of the old code. A folder therefore belongs to the sources' digest.
    """
    chosen = numba.config.CACHE_DIR
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    places = [Path(chosen)] if chosen else [HERE / "__pycache__", Path(home).expanduser() / "eravane"]
    places.append(Path(tempfile.gettempdir()) / f"eravane-kernels-{os.getuid()}")
    return next((str(place / sources_digest()) for place in places if _usable(place)), "")


def is_compiled(module: str) -> bool:
    """Whether compiled functions of a module of this folder are kept: a first run that needs them compiles them."""
    return bool(cache_folder()) and next(Path(cache_folder()).rglob(f"{module}.*.nbi"), None) is not None


def sources_digest() -> str:
    """A digest of every source that compiled functions are made of."""
    sources = sorted([*HERE.glob("*.py"), *HERE.parent.glob("*.py")])
    found = hashlib.sha256()
    for source in sources:
        found.update(f"{source.name}\0".encode() + source.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def _usable(place: Path) -> bool:
    """Whether this user alone can write there: compiled code is loaded from it."""
    with suppress(OSError, RuntimeError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return place.parent != Path(tempfile.gettempdir()) or place.stat().st_uid == os.getuid()
    return False


@contextmanager
def _cached_in(folder: str) -> Iterator[None]:
    """Numba chooses where to cache a function when it is decorated."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, folder
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
