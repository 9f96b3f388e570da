"""Arrivals and corrections of labels, and the timeline of a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eravane.calendar.clock import KnownAt
from eravane.calendar.eras import EraIndex
from eravane.calendar.timeline import Timeline, plan_timeline
from eravane.core.config import parse_config
from eravane.core.errors import RunError
from eravane.loop.schedule import FILE_NAME, Schedule
from eravane.runstate.runfolder import RunFolder

LABELS = {"target": {1: "a", 2: "b"}}


def test_a_late_label_is_hidden_until_it_arrived() -> None:
    known = KnownAt().with_arrivals("target", [7, 9], 20)
    assert known.hidden("target", 19, range(5, 12)) == (7, 9)
    assert known.hidden("target", 20, range(5, 12)) == ()
    assert known.hidden("other", 1, range(5, 12)) == ()
    assert (known.of("target", 7), known.of("target", 8)) == (20, 0)
    again = known.with_arrivals("target", [9], 25)
    assert again.hidden("target", 21, range(5, 12)) == (9,)
    assert KnownAt.from_dict(json.loads(json.dumps(again.as_dict()))) == again


def test_arrivals_are_known_from_the_next_era_on_and_corrections_are_seen(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", parse_config({}))
    schedule = Schedule().seen(LABELS, 30)
    schedule.write(run)
    assert Schedule.read(run) == schedule
    later = {"target": {1: "a", 2: "x", 4: "d"}}
    assert schedule.changed(later) == {"target": (2,)}
    assert schedule.changed({"target": {2: "b"}}) == {"target": (1,)}  # withdrawn
    arrived = schedule.arrived(later, 33)
    assert arrived.known_at.eras == {"target": {4: 34}}
    assert arrived.changed(later) == {}
    (run.path / FILE_NAME).write_text('{"known_at": {}, "labels": 3, "done": 1}')
    with pytest.raises(RunError, match="damaged"):
        Schedule.read(run)


def test_a_timeline_goes_on_over_more_eras() -> None:
    config = parse_config(
        {"data": {"horizon_eras": 4}, "time": {"loop_start": 60}, "zoo": {"fold_eras": 20, "minimum_eras": 5}}
    )
    index = EraIndex.from_counts(np.arange(1, 91), np.full(90, 3))
    planned = plan_timeline(config, index, 85)
    manifest = json.loads(json.dumps({"periods": planned.as_dict(), "lags": planned.lags_as_dict()}))
    assert Timeline.from_manifest(manifest, index) == planned
    longer = Timeline.from_manifest(manifest, EraIndex.from_counts(np.arange(1, 101), np.full(100, 3)))
    assert (longer.last_era, longer.live_era, longer.loop_start) == (100, 101, 60)
    assert longer.folds == planned.folds
    with pytest.raises(RunError, match="lacks"):
        Timeline.from_manifest({"periods": {}}, index)
