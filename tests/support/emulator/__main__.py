"""Runs cases of `cases.py` in a Python of their own: `python -m emulator SANITIZER EDIT CASE...`.

The sanitizer's runtime must be loaded before Python (LD_PRELOAD), hence the process of its own. EDIT is a JSON pair:
what to replace in the kernels' sources and by what; ["", ""] leaves them as they are. Exit code 0: all is right.
"""

from __future__ import annotations

import json
import sys

from eravane_kernels.cuda.runtime import use

from .cases import CASES, Layout, assert_matches
from .runtime import emulated_runtime

_, sanitizer, edit, *names = sys.argv
for name in names:
    # The little shared memory of the second makes the kernels that sort use global memory.
    for shared_bytes in (227 << 10, 2 << 10):
        runtime = emulated_runtime(2, sanitizer, shared_bytes, tuple(json.loads(edit)))
        with use(runtime):
            assert_matches(CASES[name], CASES[name].few, Layout(3, 0))
