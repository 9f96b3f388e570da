"""What the process that `forks` forks has done before: imports alone, and nothing that leaves a thread behind.

A fork copies the calling thread alone; a pool of OpenMP or of Python's executors would be gone, and waited for.
"""

from __future__ import annotations

import contextlib
import gc

import numba

import eravane.api
import eravane.cli.app
import eravane.cli.dataset
import eravane.cli.machine
import eravane.cli.runs
import eravane.cli.tournament
import eravane.pipeline.batch
import eravane.pipeline.demo
import eravane.pipeline.handle
import eravane.pipeline.reporting
import eravane.pipeline.week
import eravane.zoo.training

# What these import when they are first used.
numba.njit(lambda value: value)(0)
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(None):
    eravane.cli.app(["--version"])
# A collection in a fork would write to every object, and copy the page that it lies on.
gc.collect()
gc.freeze()
