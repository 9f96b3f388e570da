"""An ingest that ends itself: `victim.py DATA STORE STEP [SIGNAL]` dies at the STEP-th thing that it does to the disk.

With STEP 0 it runs to the end and prints how many such things there were. SIGNAL is SIGKILL (9) unless given.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eravane.data.ingest import ingest
from eravane.data.store import placement, source


def main(data: str, store: str, step: int, number: int) -> None:
    done = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done == step:
                os.kill(os.getpid(), number)
            return function(*arguments, **options)

        return call

    placement.SEGMENT_ROWS = 100
    source.BLOCK_BYTES = 500
    for owner, names in ((os, ("fsync", "pwrite", "posix_fallocate")), (Path, ("replace", "unlink", "mkdir"))):
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
    ingest(data, store, progress=counted(lambda *_: None))  # called as each block lies in its place
    print(done)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else signal.SIGKILL)
