"""Container images for hosted models: which of those on offer a model file can run in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eravane.core.errors import SubmitError

# "Python 3.14 (beta)", "py3.12", "python:3.12-slim", "numerai_predict_py_3_13", "cpython-312".
_DOTTED = re.compile(r"(?<![\d.])3[._-](\d{1,2})(?![\d])")
_JOINED = re.compile(r"(?:py|python|cp|cpython)[-_ ]?3(\d{2})(?!\d)", re.IGNORECASE)
_OLD = re.compile(r"deprecat|obsolete|retired|legacy|end.of.life|\beol\b", re.IGNORECASE)
_EARLY = re.compile(r"alpha|beta|\brc\d*\b|preview|experimental|nightly", re.IGNORECASE)
# What the tournament's images pin, by Python minor (numerai/numerai-predict, 2026-07): package -> version.
PINS: Mapping[int, Mapping[str, str]] = {
    10: {"numpy": "1.26.4", "pandas": "2.2.1", "xgboost": "1.7.5", "cloudpickle": "2.2.1"},
    11: {"numpy": "2.1.3", "pandas": "2.3.1", "xgboost": "3.0.2", "cloudpickle": "3.1.1"},
    12: {"numpy": "2.1.3", "pandas": "2.3.1", "xgboost": "3.0.2", "cloudpickle": "3.1.1"},
    13: {"numpy": "2.2.6", "pandas": "2.3.3", "xgboost": "3.0.5", "cloudpickle": "3.1.2"},
    14: {"numpy": "2", "pandas": "3", "xgboost": "3.0", "cloudpickle": "3"},
}
OLDEST_NUMPY = 2  # an exported file names NumPy 2's modules


@dataclass(frozen=True)
class Image:
    """An image on offer: its name, id, the Python minor in its name, and what that one pins as far as is known."""

    name: str
    id: str
    minor: int | None
    pins: Mapping[str, str]

    @property
    def deprecated(self) -> bool:
        """Whether its name marks it as deprecated."""
        return bool(_OLD.search(self.name))


def python_minor(name: str) -> int | None:
    """The Python 3 minor that an image's name states, in any of its forms; None without one."""
    found = _DOTTED.search(name) or _JOINED.search(name)
    return int(found.group(1)) if found else None


def choose_image(images: Mapping[str, str], python: str) -> Image:
    """The image for a file made with a Python minor; a pickled function runs under its own minor alone.

    Images that are called deprecated are not taken; a finished one goes before a beta.

    Args:
        images: name -> id, as the tournament offers them.
        python: "3.12".

    Raises:
        SubmitError: no image fits; the message gives the reason for each.
    """
    minor = python_minor(python)
    offered = [Image(name, key, at := python_minor(name), PINS.get(at or 0, {})) for name, key in images.items()]
    fitting = [image for image in offered if image.minor == minor and not _objection(image)]
    if minor is None or not fitting:
        listed = "; ".join(_reasons(offered, minor)) or "none"
        raise SubmitError(
            f"the tournament has no container for Python {python}; it has {listed}. Export again with one of these "
            "Pythons, or name the one that the file was made with by --python"
        )
    return min(fitting, key=lambda image: (bool(_EARLY.search(image.name)), image.name))


def _objection(image: Image) -> str:
    if image.deprecated:
        return "deprecated"
    numpy = image.pins.get("numpy", "")
    return f"NumPy {numpy}" if numpy and int(numpy.split(".")[0]) < OLDEST_NUMPY else ""


def _reasons(offered: Iterable[Image], minor: int | None) -> list[str]:
    def why(image: Image) -> str:
        return _objection(image) or ("" if image.minor is not None else "no Python in its name")

    return [f"{image.name}{f' ({reason})' if (reason := why(image)) else ''}" for image in offered]
