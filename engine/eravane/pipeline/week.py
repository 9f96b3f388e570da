"""One production week: newest files in, labels that have become known used, live rows predicted; safe to repeat.

A week is a step of the loop like any era of a backtest. What the state may depend on is the data as they are now and
`known_at.json`, with the arrival of each label: a label that is corrected after it was used takes the loop back to
before its first use, so that the state is always the one that a replay over the present data would reach.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eravane.backend import choose
from eravane.calendar.horizon import Horizon
from eravane.calendar.timeline import Timeline
from eravane.core.errors import ChangedDataError, ConfigError, RunError
from eravane.core.events import Progress, Silent
from eravane.core.files import exclusive
from eravane.data.catalog import REFERENCES, FeatureCatalog
from eravane.data.ingest import ingest
from eravane.data.resident import forget
from eravane.data.store.manifest import MANIFEST as STORE_MANIFEST
from eravane.data.store.snapshot import held
from eravane.data.store.store import EraStore
from eravane.data.store.targets import require_same_twin, require_scale
from eravane.loop.pool import StoredOof, read_pool
from eravane.loop.schedule import Digests, Schedule, label_digests
from eravane.loop.session import Session
from eravane.pipeline.cachedstore import BESIDE, Beside, score_references
from eravane.pipeline.stages import Stages
from eravane.report import write_report
from eravane.runstate.runfolder import RunFolder, versions
from eravane.scoring.payout import noted_rule
from eravane.zoo.cluster import local_cluster
from eravane.zoo.outside import load_members
from eravane.zoo.residual import with_benchmark


@dataclass(frozen=True)
class WeekReport:
    """Result of a step.

    Attributes:
        run: the run folder.
        changed: whether anything was done; False where the data have nothing new.
        eras: eras predicted, in order; missed weeks come before the live one.
        live_era: era that `live_predictions.csv` is for; None where the data have no live rows.
        arrived: target -> eras whose labels were new.
        corrected: target -> eras whose labels were others than before, or gone.
        again_from: first era that was done again because of them, or None.
        seconds: time taken.
        notes: facts the user should know, in order.
    """

    run: str
    changed: bool
    eras: tuple[int, ...]
    live_era: int | None
    arrived: Mapping[str, tuple[int, ...]]
    corrected: Mapping[str, tuple[int, ...]]
    again_from: int | None
    seconds: float
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """The report as one JSON object."""
        return dataclasses.asdict(self)


def step(run: Path, data: Path, *, cache: Path, progress: Progress | None = None, adopt: bool = False) -> WeekReport:
    """Bring a run up to date with the newest files and predict the live rows, as `eravane.api.step` describes it."""
    progress, started = progress or Silent(), time.perf_counter()
    folder = RunFolder.open(run)
    config = folder.config(adopt=adopt)
    manifest = folder.manifest()
    if manifest.get("status") != "complete":
        raise RunError(f"{run} is not finished; `eravane run ... --out {run} --resume` finishes it")
    if config.data.last_era:
        raise ConfigError(
            f"{run} ends at era {config.data.last_era} (data.last_era); a run that continues leaves it at 0"
        )
    backend = choose(config.compute.device, progress.note, config.compute.pool)
    with exclusive(folder.path), local_cluster(config.compute, backend.xgboost_device, progress.note) as compute:
        found = _bring_up_to_date(data, Path(manifest["data"]["store"]), progress.note)
        adopted = folder.adopt() if adopt else ()
        config, manifest = replace(config, compute=compute), folder.manifest()
        with held(found) as store:
            stages = Stages(folder, config, data, backend, cache, progress)
            stages.adopting = adopt
            stages.notes += [f"adopted: {what}" for what in adopted]
            try:
                report = _Week(stages, manifest, store).do()
            finally:
                forget(store, backend.name)
    return replace(report, seconds=round(time.perf_counter() - started, 3))


def _bring_up_to_date(data: Path, store: Path, wait: Callable[[str], None]) -> EraStore:
    if (data / STORE_MANIFEST).is_file():
        return EraStore.open(data.resolve())
    if not (store / STORE_MANIFEST).is_file():
        raise RunError(f"the run's store {store} is gone; make it again with `eravane ingest {data} {store}`")
    first = EraStore.open(store).manifest.first_era
    try:
        return ingest(data, store, first_era=first or None, wait=wait)
    except ChangedDataError as error:
        advice = f"a new run takes it in: eravane run {data} --rebuild-store --out NEW"
        raise ChangedDataError(error.fact, advice) from None


class _Week:
    """One call of `step`."""

    def __init__(self, stages: Stages, manifest: Mapping[str, Any], store: EraStore) -> None:
        self._stages, self._manifest, self._store = stages, manifest, store
        self._folder, self._config, self._data, self._note = stages.folder, stages.config, stages.data, stages.note
        self._before = Schedule.read(stages.folder)
        self._timeline = Timeline.from_manifest(manifest, store.index)
        stages.payout = noted_rule(manifest)
        self._zoo = stages.zoo(store, self._timeline)
        config = stages.config
        self._labels = label_digests(store, sorted({*config.targets, config.data.target}))
        self._check_target()
        self._members = load_members(config, self._data, store)
        self._beside = Beside(config, self._data, store, None, self._members)

    def do(self) -> WeekReport:
        """Catch up with the data; nothing is written where they have nothing new."""
        before, labels = self._before, self._labels
        for name in self._beside.unlike(self._manifest["data"].get(BESIDE, {})):
            self._note(
                f"{name} is not as it was at the last step: what the run learnt from it stays, and eras that are "
                "handled from now on read it as it is"
            )
        arrived = _new_eras(before.labels, labels)
        corrected = before.changed(labels)
        untouched = self._store.fingerprint == self._manifest["data"]["fingerprint"]
        session = self._open(before)
        frontier = max(before.done, session.newest_saved)
        if untouched and not session.remaining(frontier) and session.newest_saved == before.done:
            return self._report(session, changed=False)
        schedule = before.arrived(labels, frontier)
        again = self._first_use(corrected)
        again = again if again is not None and again <= frontier else None
        if again is not None:
            self._stages.notes.append(f"labels that were in use have changed: eras from {again} on are handled again")
            session.rewind(again)
        schedule.write(self._folder)
        session = self._open(schedule)
        eras = self._catch_up(session)
        self._write(session)
        schedule.seen(labels, session.newest).write(self._folder)
        return self._report(session, changed=True, eras=eras, arrived=arrived, corrected=corrected, again_from=again)

    def _check_target(self) -> None:
        """Compare what the main target equals now with what it equalled when the run began.

        Raises:
            ChangedDataError: it is another target now.
            DataError: a target's labels left the scale 0 to 1.
        """
        for name in {self._config.data.target, *self._config.targets}:
            require_scale(name, self._store.facts[name])
        target, began = self._config.data.target, self._manifest.get("horizon")
        now, clock = self._store.facts[target], self._timeline.clock
        if began is not None and began["twin"]:
            require_same_twin(target, replace(now, twins=(began["twin"],), near=None), now)
        longer = [name for name in now.twins if (span := Horizon.named(name)) and span.eras > clock.span.eras]
        if began is None and longer:
            self._note(
                f"{target!r} equals {longer[0]!r}: its labels are longer than the {clock.span} whose lags this run "
                "began with and keeps; a new run takes the right ones"
            )

    def _open(self, schedule: Schedule) -> Session:
        pool, neutral = read_pool(self._folder.path)
        specs = tuple(with_benchmark(pool, self._config, self._data, self._store, self._stages.cache))
        features = self._stages.features(self._store, self._members)
        # The data may grow and labels be corrected, which `do` sees to; the store itself refuses other features.
        identity = {"config": self._folder.known_digests()}
        return self._stages.session(
            features,
            self._timeline,
            specs,
            self._zoo,
            identity,
            neutral_columns=neutral,
            known_at=schedule.known_at,
        )

    def _first_use(self, corrected: Mapping[str, tuple[int, ...]]) -> int | None:
        """First era of the loop that a corrected label may have influenced."""
        timeline, main = self._timeline, self._config.data.target
        uses: list[int] = []
        for target, eras in corrected.items():
            lags = [timeline.tree_lags[target]] if target in timeline.tree_lags else []
            lags += [timeline.clock.score_lag] if target == main else []
            uses += [max(era + min(lags), self._before.known_at.of(target, era)) for era in eras]
        return max(timeline.loop_start, min(uses)) if uses else None

    def _catch_up(self, session: Session) -> tuple[int, ...]:
        oof = StoredOof(self._folder.path, session.model_ids)
        resumed = self._stages.resume(session, oof)
        if resumed.era is None:
            self._note(f"the loop is run again from its start, era {self._timeline.loop_start}")
            self._stages.begin(session, oof, oof.eras)
        return self._stages.advance(session, resumed.era)

    def _write(self, session: Session) -> None:
        if self._stages.write_live(session) is None:
            self._note("the data have no live rows: live_predictions.csv is not of this week")
        catalog = FeatureCatalog.of_run(self._store.path, self._config.data)
        _, warnings = self._stages.write_results(session, session.features, catalog)
        newest_label = max(self._labels[self._config.data.target])
        timeline = replace(self._timeline, newest_label=newest_label)
        old = self._manifest["data"]
        data = {
            "store": str(self._store.home.resolve()),
            "fingerprint": self._store.fingerprint,
            BESIDE: {**old.get(BESIDE, {}), **self._beside.digests()},
            # Those that are gone stay listed: scores name what they lack.
            REFERENCES: list(dict.fromkeys([*old.get(REFERENCES, []), *score_references(self._data)])),
        }
        if not (self._data / STORE_MANIFEST).is_file():
            data["path"] = str(self._data.resolve())
        changes = {
            "versions": versions(),
            "data": {**old, **data},
            "periods": timeline.as_dict(),
            "warnings": warnings,
        }
        self._folder.write_json("manifest.json", {**self._manifest, **changes})
        write_report(self._folder.path)

    def _report(
        self,
        session: Session,
        *,
        changed: bool,
        eras: tuple[int, ...] = (),
        arrived: Mapping[str, tuple[int, ...]] | None = None,
        corrected: Mapping[str, tuple[int, ...]] | None = None,
        again_from: int | None = None,
    ) -> WeekReport:
        live_era = None if session.live is None else self._timeline.live_era
        run, notes = str(self._folder.path), tuple(self._stages.notes)
        return WeekReport(run, changed, eras, live_era, arrived or {}, corrected or {}, again_from, 0.0, notes)


def _new_eras(before: Digests, now: Digests) -> dict[str, tuple[int, ...]]:
    found = {target: tuple(era for era in eras if era not in before.get(target, {})) for target, eras in now.items()}
    return {target: eras for target, eras in found.items() if eras}
