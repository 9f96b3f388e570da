"""Checks of a dataset's targets for `doctor DATA`: equal columns, horizons, contradictions, scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from eravane.calendar.horizon import Horizon
from eravane.core.errors import ConfigError, DataError
from eravane.data.store.manifest import MANIFEST
from eravane.data.store.store import EraStore
from eravane.data.store.targets import TargetFacts, horizon_of, require_scale
from eravane.planning.doctor import Check
from eravane.planning.shape import read_targets


def examine_targets(data: Path) -> list[Check]:
    """Judge the targets of a folder of files or of a store.

    Raises:
        DataError: the files are missing or break the dataset's contract.
        StoreError: the store is damaged.
    """
    facts = EraStore.open(data).facts if (data / MANIFEST).is_file() else read_targets(data).facts
    return list(_checks(facts))


def _checks(facts: Mapping[str, TargetFacts]) -> Iterator[Check]:
    quiet: dict[Horizon, list[str]] = {}
    for name, fact in facts.items():
        try:
            found = horizon_of(name, facts)
            require_scale(name, fact)
        except (ConfigError, DataError) as error:
            text, _, advice = str(error).rpartition("; ")
            yield Check("target", "fail" if isinstance(error, DataError) else "warn", text or str(error), advice)
            continue
        for note in found.notes:
            yield Check("target", "warn", note, "compare the file with a fresh download")
        if found.how == "name" and not found.notes:
            quiet.setdefault(found.span, []).append(name)
        elif found.how != "name":
            yield Check("target", "ok", found.sentence(found.span.score_lag, found.span.tree_lag))
    for span, names in sorted(quiet.items(), key=lambda entry: entry[0].eras):
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Check("target", "ok", f"{listed}, {span}: lags {span.score_lag} and {span.tree_lag}, purge {span.purge}")
