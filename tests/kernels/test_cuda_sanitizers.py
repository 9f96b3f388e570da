"""Every kernel under the sanitizers, its keys in shared and in global memory."""

from __future__ import annotations

import pytest

from tests.support.emulator import compiler_missing
from tests.support.emulator.cases import CASES
from tests.support.emulator.sanitize import run

pytestmark = pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing())

QUICK = {"address": "apply_table", "thread": "deviations"}
ALL = [
    pytest.param(sanitizer, name, marks=[] if QUICK[sanitizer] == name else [pytest.mark.full])
    for sanitizer in QUICK
    for name in CASES
]


@pytest.mark.parametrize(("sanitizer", "name"), ALL)
def test_clean(sanitizer, name):
    done = run(sanitizer, name)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Sanitizer" not in done.stderr
