"""Cache of finished boosters on disk, shared by all runs."""

from __future__ import annotations

import hashlib
import logging
import uuid
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger("eravane")


class BoosterCache:
    """Finished boosters on disk, named by everything that decides them.

    Args:
        folder: the cache's folder; None caches nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._reported = folder, False

    def get(self, key: str) -> bytes | None:
        """A booster, or None where it is missing or damaged (which is logged)."""
        if self._folder is None:
            return None
        path = self._folder / f"{key}.ubj"
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, block = content[:32], content[32:]
        if hashlib.sha256(block).digest() != digest:
            logger.warning("zoo cache entry %s is damaged and is trained again", path.name)
            return None
        return block

    def put(self, key: str, block: bytes) -> None:
        """Store a booster; a reader sees the complete file or none."""
        if self._folder is None:
            return
        temporary = self._folder / f".{key}.{uuid.uuid4().hex[:12]}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(hashlib.sha256(block).digest() + block)
            temporary.replace(self._folder / f"{key}.ubj")
        except OSError as error:  # the run continues; only another one has to train the booster again
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self._reported:
                self._reported = True
                logger.warning("boosters are not kept in %s: %s", self._folder, error.strerror or error)
