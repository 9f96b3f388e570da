"""The boosters of a run on disk: plain UBJ files that XGBoost opens, named by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from eravane.errors import RunError
from eravane.files import write_atomically
from eravane.zoo.trees import Trees

INDEX = "index.json"


class ModelFolder:
    """Boosters by content; a block that many checkpoints refer to is written once.

    Args:
        folder: `RUN/models`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, models: Mapping[str, Trees]) -> dict[str, list[str]]:
        """Store the blocks that are not there yet; returns model id -> names of its blocks."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return {model_id: [self._put(block) for block in trees.blocks] for model_id, trees in models.items()}

    def get(self, names: Mapping[str, Sequence[str]], columns: Mapping[str, tuple[str, ...]]) -> dict[str, Trees]:
        """Read models back.

        Args:
            names: from `put`.
            columns: model id -> its features.

        Raises:
            RunError: a file is missing or damaged.
        """
        return {
            model_id: Trees(tuple(self._get(name) for name in blocks), columns[model_id])
            for model_id, blocks in names.items()
        }

    def write_index(self, names: Mapping[str, Sequence[str]], columns: Mapping[str, tuple[str, ...]]) -> None:
        """Write `index.json`: per model its blocks, whose outputs add up, and its features in order."""
        content = {
            model_id: {"blocks": [f"{name}.ubj" for name in blocks], "columns": list(columns[model_id])}
            for model_id, blocks in names.items()
        }
        write_atomically(self._folder / INDEX, (json.dumps(content, indent=1) + "\n").encode())

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete every booster that is not named."""
        kept = set(names)
        for path in self._folder.glob("*.ubj"):
            if path.stem not in kept:
                path.unlink()

    def _put(self, block: bytes) -> str:
        name = hashlib.sha256(block).hexdigest()[:16]
        path = self._folder / f"{name}.ubj"
        if not path.exists():
            write_atomically(path, block)
        return name

    def _get(self, name: str) -> bytes:
        path = self._folder / f"{name}.ubj"
        try:
            block = path.read_bytes()
        except OSError as error:
            raise RunError(f"the booster {path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(block).hexdigest()[:16] != name:
            raise RunError(f"the booster {path} is damaged: its content does not match its name")
        return block
