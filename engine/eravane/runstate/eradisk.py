"""One safetensors file per era, with a checksum, written once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from eravane.core.arrays import Named
from eravane.core.errors import LayoutError, RunError
from eravane.core.files import write_atomically
from eravane.core.layout import Layout
from eravane.runstate.checkpoint import ADVICE

CHECKSUM = "sha256"
T = TypeVar("T")


class EraFiles:
    """Arrays by era.

    Args:
        folder: the files' folder; created when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, era: int, arrays: Named) -> None:
        """Store an era; after a kill it is complete or absent."""
        self._folder.mkdir(parents=True, exist_ok=True)
        plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_atomically(self._path(era), save(plain, metadata={CHECKSUM: _checksum(plain)}))

    def get(self, era: int, build: Callable[[Layout], T], **sizes: int) -> T:
        """Result of `build` on the arrays of an era.

        Args:
            era: the era; build: takes the arrays; sizes: of dimensions that are known.

        Raises:
            RunError: the file is missing, damaged, or laid out in another way.
        """
        path = self._path(era)
        try:
            content = path.read_bytes()
            arrays: Named = load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            if header["__metadata__"][CHECKSUM] != _checksum(arrays):
                raise ValueError("its content does not match its checksum")
            return build(Layout(arrays, **sizes))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}); start the run again in a new folder") from error
        except LayoutError as error:
            raise RunError(f"{path} was written by another eravane: this one {error}; {ADVICE}") from None

    def eras(self) -> list[int]:
        """Eras that have a file, ascending."""
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.safetensors"))

    def forget_after(self, era: int) -> None:
        """Delete later eras: they were written after the checkpoint that a resumed run starts from."""
        for later in self.eras():
            if later > era:
                self._path(later).unlink()

    def _path(self, era: int) -> Path:
        return self._folder / f"{era:04d}.safetensors"


def _checksum(arrays: Named) -> str:
    whole = hashlib.sha256()
    for name in sorted(arrays):
        whole.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode() + arrays[name].tobytes())
    return whole.hexdigest()
