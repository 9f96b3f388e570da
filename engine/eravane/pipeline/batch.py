"""The batch: from a dataset and a configuration to a run folder with predictions, scores, report and submission."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.backend import choose
from eravane.calendar.timeline import Timeline, plan_timeline
from eravane.core.config import RunConfig
from eravane.core.errors import EravaneError, RunError
from eravane.core.events import Progress, Silent
from eravane.core.files import default_cache
from eravane.core.memory import cores
from eravane.core.telemetry import Telemetry, gpu_meter
from eravane.data.catalog import FeatureCatalog
from eravane.data.features import Features
from eravane.data.resident import forget
from eravane.data.store.snapshot import held
from eravane.data.store.store import EraStore
from eravane.learners.choice import resolve_learner, with_learner
from eravane.loop.pool import OOF, neutral_columns, write_pool
from eravane.loop.schedule import Schedule, label_digests
from eravane.loop.session import Session
from eravane.pipeline.cachedstore import (
    BESIDE,
    Beside,
    begun_store,
    cached_store,
    described,
    require_begun,
)
from eravane.pipeline.rules import Settled, settle
from eravane.pipeline.stages import Stages
from eravane.planning.memory import plan_memory
from eravane.report import write_report
from eravane.runstate.checkpoint import FORMAT
from eravane.runstate.runfolder import ADOPTED, MANIFEST, RunFolder, versions
from eravane.zoo.cluster import LOCAL, local_cluster
from eravane.zoo.oof import OutOfFold, out_of_fold, score_out_of_fold
from eravane.zoo.outside import coverage, load_members, load_references, member_specs
from eravane.zoo.residual import with_benchmark
from eravane.zoo.selection import proxy_relation, select
from eravane.zoo.specs import ModelSpec, model_specs
from eravane.zoo.table import write_oof, zoo_table
from eravane.zoo.trainer import Zoo


@dataclass(frozen=True)
class RunResult:
    """Result of a finished run.

    Attributes:
        path: the run folder.
        metrics: the content of metrics.json.
        report: path of report.html.
        notes: facts for the user, in order.
    """

    path: Path
    metrics: dict[str, Any]
    report: Path
    notes: tuple[str, ...]


def run(
    data: Path,
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
    replay_of: Path | None = None,
    rebuild_store: bool = False,
    adopt: bool = False,
) -> RunResult:
    """Run the whole batch, as `eravane.api.run` describes it.

    What lies on a device is given back at the end.
    """
    progress, cache = progress or Silent(), cache or default_cache()
    backend = choose(config.compute.device, progress.note, config.compute.pool)
    cluster = local_cluster(config.compute, backend.xgboost_device, progress.note)
    telemetry = Telemetry(gpu_meter() if backend.name == "cuda" else None)
    entered = RunFolder.held(out, config, resume=resume, adopt=adopt)
    with entered as (folder, config), _readable_disk_errors(folder), cluster as compute, telemetry:
        try:
            own_cluster = config.compute.scheduler == LOCAL
            config = replace(config, compute=compute)
            stages = Stages(folder, config, data, backend, cache, progress, telemetry)
            stages.adopting = adopt
            return _Batch(stages, telemetry, replay_of, own_cluster=own_cluster).run(rebuild_store)
        except EravaneError:
            if not resume and not folder.started:
                shutil.rmtree(folder.path)  # nothing but the configuration is in it
            raise


@contextmanager
def _readable_disk_errors(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{error.strerror or error}{f' at {error.filename}' if error.filename else ''}; fix this and continue with "
            f"--resume (what is in {folder.path} is whole)"
        ) from error


class _Batch:
    """A whole run, stage by stage."""

    def __init__(
        self, stages: Stages, telemetry: Telemetry, replay_of: Path | None = None, *, own_cluster: bool = False
    ) -> None:
        self._own_cluster = own_cluster
        self._stages, self._telemetry, self._replay_of = stages, telemetry, replay_of
        self._schedule = Schedule() if replay_of is None else Schedule.read(RunFolder.open(replay_of))
        self._data, self._config, self._folder = stages.data, stages.config, stages.folder
        self._backend, self._progress, self._events = stages.backend, stages.progress, stages.events
        self._note, self._settled = stages.note, Settled()
        self._warnings: list[str] = []
        self._beside: dict[str, str] = {}

    def run(self, rebuild_store: bool) -> RunResult:
        catalog = self._catalog()
        with held(self._store(catalog, rebuild_store), self._folder.path) as store:
            try:
                return self._run(catalog, store)
            finally:
                forget(store, self._backend.name)

    def _run(self, catalog: FeatureCatalog, store: EraStore) -> RunResult:
        stages = self._stages
        self._settle_learner(store)
        with self._events.stage("verify"):
            store.verify()
        timeline = self._timeline(store)
        self._note_periods(timeline)
        self._note_missing(store)
        self._plan_memory(store, catalog, timeline)
        members = load_members(self._config, self._data, store)
        found = Beside(self._config, self._data, store, catalog, members)
        if self._folder.started:
            found.require(self._folder.manifest()["data"].get(BESIDE, {}))
        self._beside = found.digests()
        self._write_manifest(store, timeline, "running")
        zoo = stages.zoo(store, timeline)
        for note in zoo.notes:
            self._note(note)
        for note in coverage(members, store, timeline.folds[0].predict_first):
            self._note(note)
        features = stages.features(store, members)
        # All checks of the input come before anything is trained.
        neutral = neutral_columns(self._config, catalog)
        references = load_references(self._config, self._data, store)
        specs = model_specs(catalog, self._config) + member_specs(members, self._config.data.target)
        specs = with_benchmark(specs, self._config, self._data, store, stages.cache)
        if self._backend.name != "cpu":
            self._note(str(zoo.keep_features(self._backend, specs)))
        oof = self._out_of_fold(zoo, specs, timeline, features)
        with self._events.stage("selection", models=len(specs)):
            chosen = self._select(specs, oof, timeline, features, references)
        session = self._run_loop(features, timeline, chosen, zoo, neutral, oof)
        self._write_live(session)
        labels = label_digests(store, sorted({*self._config.targets, self._config.data.target}))
        self._schedule.seen(labels, session.newest).write(self._folder)
        metrics, self._warnings = stages.write_results(session, features, catalog)
        self._write_manifest(store, timeline, "complete")
        self._folder.write_table("telemetry.parquet", self._telemetry.table())
        return RunResult(self._folder.path, metrics, write_report(self._folder.path), tuple(stages.notes))

    def _settle_learner(self, store: EraStore) -> None:
        """Resolve the learner "auto" and write it into run.toml."""
        self._config, note = resolve_learner(self._config, store.dtype)
        self._stages.config = self._config
        if note:
            self._note(note)
            self._folder.write_config(with_learner(self._folder.config(), self._config.zoo.learner))

    def _catalog(self) -> FeatureCatalog:
        catalog = FeatureCatalog.of_run(self._data, self._config.data)
        empty = catalog.empty_cells()
        if empty:
            self._note(f"{len(empty)} empty cells are skipped: {', '.join('.'.join(cell) for cell in empty)}")
        return catalog

    def _store(self, catalog: FeatureCatalog, rebuild: bool) -> EraStore:
        self._progress.start("ingest", 1)
        begun = self._folder.manifest()["data"] if self._folder.started else None
        with self._events.stage("ingest") as found:
            store = None if begun is None or rebuild else begun_store(self._data, begun, self._note)
            if store is None:
                cache, wait = self._stages.cache, self._progress.note
                store = cached_store(self._data, self._config.data, catalog, cache, rebuild=rebuild, wait=wait)
            found |= {"rows": store.index.rows, "columns": len(store.columns)}
        if begun is not None:
            require_begun(store, begun)
        self._progress.advance(f"{store.index.rows:,} rows, {len(store.columns)} features, {len(store.index)} eras")
        return store

    def _timeline(self, store: EraStore) -> Timeline:
        if self._replay_of is not None:
            manifest = RunFolder.open(self._replay_of).read_json("manifest.json")
            self._settled = Settled.from_manifest(manifest)
            self._stages.payout = self._settled.payout
            return Timeline.from_manifest(manifest, store.index)
        self._settled = settled = settle(self._config, self._data, store, self._folder, self._note)
        self._stages.payout = settled.payout
        newest = store.facts[self._config.data.target].newest
        return plan_timeline(self._config, store.index, newest, settled.horizons)

    def _note_periods(self, timeline: Timeline) -> None:
        clock = timeline.clock
        self._note(
            f"eras {timeline.first_era} to {timeline.last_era}, labels to {timeline.newest_label}; "
            f"{len(timeline.folds)} folds, loop from era {timeline.loop_start}, report from {timeline.report_start}"
        )
        self._note(self._settled.sentence(clock) or f"lags {clock.score_lag} and {clock.tree_lag}")
        if clock.observed_lag > clock.span.score_lag:
            self._note(f"the labels in the files come later than by the rule: {clock.observed_lag} eras")
        if clock.leaking:
            self._note("LEAKING: a lag is shorter than the labels need; the scores of this run are void")

    def _note_missing(self, store: EraStore) -> None:
        blank_EC = store.blank()
        if blank_EC.any():
            features, eras = int(blank_EC.any(axis=0).sum()), int(blank_EC.any(axis=1).sum())
            self._note(
                f"{features} features are missing throughout some era ({eras} eras, {blank_EC.mean():.1%} of all "
                f"feature x era pairs); prepare.missing_eras = {self._config.prepare.missing_eras!r}"
            )

    def _plan_memory(self, store: EraStore, catalog: FeatureCatalog, timeline: Timeline) -> None:
        workers = self._config.compute.workers or cores()
        device = self._backend.name
        programs = workers if self._own_cluster else 0
        plan = plan_memory(
            self._config, catalog, store.index, store.dtype, timeline, workers, device, programs=programs
        )
        for line in plan.lines():
            self._progress.note(line)
        plan.require()

    def _write_manifest(self, store: EraStore, timeline: Timeline, status: str) -> None:
        clock, begun = timeline.clock, self._folder.read_json(MANIFEST) if self._folder.started else {}
        settled = self._settled.as_dict()
        if begun and "horizon" not in begun:  # release 0.1.0 noted none: a further resume keeps its lags, too
            del settled["horizon"]
        self._folder.write_json(
            MANIFEST,
            {
                **{name: begun[name] for name in (ADOPTED,) if name in begun},
                "format": FORMAT,
                "status": status,
                "versions": versions(),
                "device": self._backend.name,
                "data": {**described(self._data, store), BESIDE: self._beside},
                "config_digest": self._config.digest(),
                "seed": self._config.seed,
                "target": self._config.data.target,
                **settled,
                "periods": timeline.as_dict(),
                "lags": timeline.lags_as_dict(),
                "leaking": clock.leaking,
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "notes": self._stages.notes,
                "warnings": self._warnings,
            },
        )

    def _out_of_fold(self, zoo: Zoo, specs: Sequence[ModelSpec], timeline: Timeline, features: Features) -> OutOfFold:
        self._progress.start("zoo", sum(not spec.outside for spec in specs) * len(timeline.folds))
        with self._events.stage("zoo", models=len(specs), folds=len(timeline.folds)) as found:
            oof = out_of_fold(zoo, specs, timeline.folds, features, self._stages.trained, folder=self._folder.path)
            found["tasks"] = {name: round(seconds, 4) for name, seconds in oof.parts.items()}
        return oof

    def _select(
        self,
        specs: Sequence[ModelSpec],
        oof: OutOfFold,
        timeline: Timeline,
        features: Features,
        references: Mapping[str, NDArray[np.float64]],
    ) -> tuple[ModelSpec, ...]:
        config = self._config
        ops, newest = self._backend.kernels, timeline.selection_end
        scores = score_out_of_fold(oof, features, config.data.target, newest, ops, references)
        lag, device = timeline.clock.hac_lag, self._backend.xgboost_device
        beyond, payout = scores.beyond, self._settled.payout
        ranking = config.ranking
        if ranking != config.selection and not any(np.isfinite(values).any() for values in beyond.values()):
            self._note("no out-of-fold era has the meta model or a benchmark model: models are ranked by CORR")
            ranking = config.selection
        verdicts = select(specs, scores.scores_ME, scores.similarity_MM, ranking, lag, beyond, payout)
        if config.aim == "payout" and (relation := proxy_relation(beyond)):
            self._note(relation)
        table = zoo_table(verdicts, scores, config.zoo, oof.seconds, device=device, hac_lag=lag)
        self._folder.write_table("zoo.parquet", table)
        write_oof(self._folder.path / OOF, oof, features)
        chosen = tuple(verdict.spec for verdict in verdicts if verdict.selected)
        if not chosen:
            raise RunError(
                "no base model has a score in an out-of-fold era, and so none is selected: their predictions are "
                "constant (zoo.params, zoo.trees), or no row has a label"
            )
        self._note(f"{len(chosen)} of {len(verdicts)} base models selected on {len(scores.eras)} out-of-fold eras")
        return chosen

    def _run_loop(
        self,
        features: Features,
        timeline: Timeline,
        specs: tuple[ModelSpec, ...],
        zoo: Zoo,
        neutral: tuple[str, ...],
        oof: OutOfFold,
    ) -> Session:
        stages, store = self._stages, features.store
        history = store.index.select(oof.first_era, oof.last_era)
        model_ids = [spec.model_id for spec in specs]
        identity = {"config": self._folder.known_digests(), "data": (store.fingerprint,)}
        known_at = self._schedule.known_at
        session = stages.session(features, timeline, specs, zoo, identity, neutral_columns=neutral, known_at=known_at)

        def oof_of(era: int) -> NDArray[np.float32]:
            return oof.era(history, era, model_ids)

        resumed = stages.resume(session, oof_of)
        write_pool(self._folder.path, specs, neutral)
        if resumed.era is None:
            stages.begin(session, oof_of, list(history))
        else:
            self._note(f"resumed after era {resumed.era}")
        stages.advance(session, resumed.era)
        return session

    def _write_live(self, session: Session) -> None:
        written = self._stages.write_live(session)
        if written is None:
            self._note("the dataset has no live.parquet for the era after its newest: no live predictions were made")
        else:
            rows, n_open = written
            self._note(f"{rows:,} live predictions by {n_open} models are ready to submit")
