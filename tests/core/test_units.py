"""Sizes and durations: read exactly, written in the unit that reads best."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eravane.core.errors import ConfigError
from eravane.core.units import duration, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GB", 16_000_000_000),
        ("16 GiB", 16 * 2**30),
        ("1.5gb", 1_500_000_000),
        ("800m", 800_000_000),
        ("512KiB", 512 * 1024),
        ("2T", 2 * 10**12),
        ("4096", 4096),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-3GB", "16 gigs", "0GB", "1e9", "16GBs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (999_960, "1.0 MB"),
        (999_940, "999.9 kB"),
        (999_960_000_000, "1.0 TB"),
        (2.34e9, "2.3 GB"),
        (1e12, "1.0 TB"),
        (5_100_000, "5.1 MB"),
        (12_345, "12.3 kB"),
        (340, "340 B"),
        (0, "0 B"),
    ],
)
def test_sizes_are_written(size: float, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(1, 10**15))
def test_a_written_size_is_near_the_size(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.051)


@given(st.integers(0, 14), st.floats(0.999, 1.001))
def test_no_size_is_written_as_a_thousand_of_a_unit(power: int, share: float) -> None:
    """Just below a unit, rounding would make a thousand of the one before."""
    assert float(format_size(round(10**power * share)).split()[0]) < 1000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250 ms"),
        (0.9996, "1.0 s"),
        (12.44, "12.4 s"),
        (59.96, "1 min 0 s"),
        (93, "1 min 33 s"),
        (7199.6, "2 h 0 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_durations_are_written(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(1e-3, 1e6))
def test_a_written_duration_is_near_the_duration(seconds: float) -> None:
    units = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
    parts = re.findall(r"([\d.]+) (ms|s|min|h)", duration(seconds))
    assert sum(float(number) * units[unit] for number, unit in parts) == pytest.approx(seconds, rel=0.051, abs=6e-4)
