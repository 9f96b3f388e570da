"""Models of a run on disk: plain UBJ files that XGBoost opens, and their margins, named by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eravane.core.errors import RunError
from eravane.core.files import write_atomically
from eravane.learners.registry import Trees
from eravane.loop.margins import Margins
from eravane.loop.updates import Model

INDEX = "index.json"


class Blobs:
    """Files named by content; a file that many checkpoints refer to is written once.

    Args:
        folder: their folder; created when the first one is written.
        suffix: of their names.
        kind: their kind, for error messages.
    """

    def __init__(self, folder: Path, suffix: str, kind: str) -> None:
        self._folder, self._suffix, self._kind = folder, suffix, kind

    def put(self, content: bytes) -> str:
        """Store a file unless it is there; returns its name."""
        name = hashlib.sha256(content).hexdigest()[:16]
        path = self._path(name)
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        return name

    def get(self, name: str) -> bytes:
        """Read a file back.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self._path(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunError(f"the {self._kind} {path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest()[:16] != name:
            raise RunError(f"the {self._kind} {path} is damaged: its content does not match its name")
        return content

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete every file that is not named."""
        kept = set(names)
        for path in self._folder.glob(f"*{self._suffix}"):
            if path.stem not in kept:
                path.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{self._suffix}"


@dataclass(frozen=True)
class StoredModel:
    """Files of a model: names of its blocks, and of its margins ("" where it has none)."""

    blocks: tuple[str, ...]
    margins: str = ""


class ModelFolder:
    """The base models of a run.

    Args:
        run: the run folder; boosters lie in `models/`, margins in `checkpoints/margins/`.
    """

    def __init__(self, run: Path) -> None:
        self._index = run / "models" / INDEX
        self._blocks = Blobs(run / "models", ".ubj", "booster")
        self._margins = Blobs(run / "checkpoints" / "margins", ".safetensors", "file of margins")
        self._put: dict[str, tuple[Model, StoredModel]] = {}

    def put(self, models: Mapping[str, Model]) -> dict[str, StoredModel]:
        """Store new files; returns model id -> its files."""
        for model_id, model in models.items():
            if model_id not in self._put or self._put[model_id][0] is not model:
                margins = self._margins.put(model.margins.to_bytes()) if model.margins.by_era else ""
                blocks = tuple(self._blocks.put(block) for block in model.trees.blocks)
                self._put[model_id] = model, StoredModel(blocks, margins)
        return {model_id: self._put[model_id][1] for model_id in models}

    def get(self, stored: Mapping[str, StoredModel], columns: Mapping[str, tuple[str, ...]]) -> dict[str, Model]:
        """Read models back.

        Args:
            stored: from `put`.
            columns: model id -> its features.

        Raises:
            RunError: a file is missing or damaged.
        """
        found: dict[str, Model] = {}
        for model_id, where in stored.items():
            trees = Trees(tuple(self._blocks.get(name) for name in where.blocks), columns[model_id])
            margins = Margins.from_bytes(self._margins.get(where.margins)) if where.margins else Margins({})
            found[model_id] = Model(trees, margins)
        return found

    def write_index(self, stored: Mapping[str, StoredModel], columns: Mapping[str, tuple[str, ...]]) -> None:
        """Write `index.json`: per model its blocks, whose outputs add up, and its features in order."""
        content = {
            model_id: {"blocks": [f"{name}.ubj" for name in where.blocks], "columns": list(columns[model_id])}
            for model_id, where in stored.items()
        }
        write_atomically(self._index, (json.dumps(content, indent=1) + "\n").encode())

    def keep_only(self, stored: Sequence[Mapping[str, StoredModel]]) -> None:
        """Delete every booster and every margin that none of these models refers to."""
        places = [where for models in stored for where in models.values()]
        self._blocks.keep_only(name for where in places for name in where.blocks)
        self._margins.keep_only(where.margins for where in places)
