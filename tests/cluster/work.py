"""A task for workers of tests: it takes a while and says where it ran."""

from __future__ import annotations

import os
import time
from typing import Any


def pause(task: Any, _control: Any) -> tuple[Any, int]:
    """The task and the process that did it, after half a second."""
    time.sleep(0.5)
    return task, os.getpid()
