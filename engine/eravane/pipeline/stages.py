"""Stages shared by a whole run and a weekly step: zoo, loop, live predictions, results, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eravane.backend import Backend
from eravane.calendar.clock import KnownAt
from eravane.calendar.timeline import Timeline
from eravane.core.config import RunConfig
from eravane.core.errors import RunError
from eravane.core.events import EventLog, Progress
from eravane.core.telemetry import Telemetry
from eravane.data.catalog import FeatureCatalog
from eravane.data.features import Features
from eravane.data.store.store import EraStore
from eravane.loop.pool import OofOf
from eravane.loop.session import Resumed, Session
from eravane.pipeline.insights import write_insights
from eravane.runstate.runfolder import MANIFEST, RunFolder, changed_versions
from eravane.scoring.payout import RULES
from eravane.tournament.predictions import FILE_NAME, write_live_predictions
from eravane.zoo.outside import Member, paid_by
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo
from eravane.zoo.training import Finished

LIVE_WEIGHTS = "live.json"
# Predictions of stored models under other versions of libraries: rows on which they are compared, and what is rounding.
CHECKED_ROWS, MOVED = 256, 1e-5


class Stages:
    """The stages of one run folder.

    Args:
        folder: the run folder.
        config: its configuration, with the address of the cluster that the work runs on.
        data: folder of the dataset, or a store.
        backend: the device.
        cache: folder of stores and finished boosters, shared by runs.
        progress: where to show how far it is.
        telemetry: what samples load and memory; None for a weekly step.

    Attributes:
        notes: facts the user should know, in order.
        payout: what is paid.
        adopting: whether predictions of stored models may move.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        data: Path,
        backend: Backend,
        cache: Path,
        progress: Progress,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.folder, self.config, self.data, self.backend = folder, config, data, backend
        # Workers of a cluster have working directories of their own.
        self.cache, self.progress, self.notes = cache.resolve(), progress, list[str]()
        self.payout, self.adopting = RULES[-1], False
        self.events = EventLog(folder.path / "events.jsonl", backend.name, telemetry)

    def note(self, text: str) -> None:
        """Show a fact, and store it for the manifest or the report of the step."""
        self.notes.append(text)
        self.progress.note(text)

    def zoo(self, store: EraStore, timeline: Timeline) -> Zoo:
        """The trainer of the run's base models."""
        return Zoo(
            store.path,
            self.config,
            timeline,
            xgboost_device=self.backend.xgboost_device,
            cache=self.cache / "boosters",
            memory_budget=self.backend.room(),
            on_usage=lambda usage: self.events.write("worker", **usage.as_dict()),
        )

    def features(self, store: EraStore, members: Sequence[Member]) -> Features:
        """Prepared features and labels, with the members from outside and the columns of the payout."""
        return Features.open(store.path, self.config.prepare, self.backend).with_outside(
            {member.name: member for member in members}, paid_by(self.config, self.data, store)
        )

    def session(
        self,
        features: Features,
        timeline: Timeline,
        specs: tuple[ModelSpec, ...],
        zoo: Zoo,
        identity: Mapping[str, Sequence[str]],
        *,
        neutral_columns: tuple[str, ...],
        known_at: KnownAt,
    ) -> Session:
        """The loop of the run, on disk; see `Session`."""
        return Session(
            self.folder,
            self.config,
            features,
            timeline,
            specs,
            zoo,
            self.backend,
            identity,
            neutral_columns=neutral_columns,
            known_at=known_at,
            payout=self.payout,
        )

    def trained(self, done: Finished) -> None:
        """Log and show a finished model."""
        self.events.write(
            "trained",
            cell=done.model_id.rsplit(".", 2)[0],
            model=done.model_id,
            cached=done.cached,
            train_last=done.train_last,
            seconds=round(done.seconds, 4),
            trained_on=done.device,
        )
        rate = f"{done.work / max(done.seconds, 1e-9) / 1e6:,.0f} M rows x features x trees per second"
        self.progress.advance(f"{done.model_id} to era {done.train_last}: {'cached' if done.cached else rate}")

    def resume(self, session: Session, oof_of: OofOf) -> Resumed:
        """Restore the newest complete checkpoint, if there is one."""
        resumed = session.resume(oof_of)
        for text in resumed.notes:
            self.note(text)
        if resumed.era is not None:
            self._check_libraries(session, resumed.era)
        return resumed

    def _check_libraries(self, session: Session, era: int) -> None:
        """Compare predictions of the stored models with those that they made, where libraries have changed since.

        Raises:
            RunError: they have moved.
        """
        changed = changed_versions(self.folder.read_json(MANIFEST).get("versions", {}))
        if not changed:
            return
        moved = session.moved(era, CHECKED_ROWS)
        same = "as before" if not moved else f"as before but for {moved:.2g}"
        self.note(f"versions changed under the run ({', '.join(changed)}); its models predict era {era} {same}")
        if moved > MOVED and not self.adopting:
            raise RunError(
                f"versions changed under {self.folder.path} ({', '.join(changed)}), and the predictions of its models "
                f"moved by up to {moved:.2g}; install the versions in its {MANIFEST} again, or accept the change with "
                "--adopt"
            )

    def begin(self, session: Session, oof_of: OofOf, history: Sequence[int]) -> None:
        """Fit the models that start the loop and give the gate its out-of-fold history."""
        self.progress.start("first models", len(session.specs))
        with self.events.stage("first models", models=len(session.specs)):
            session.fit_first_models(self.trained)
        self.progress.start("history", len(history))
        with self.events.stage("history", eras=len(history)):
            for era in history:
                session.loop.await_labels(era, oof_of(era))
                self.progress.advance(f"era {era}")

    def advance(self, session: Session, done: int | None) -> tuple[int, ...]:
        """Handle every era of the loop after `done` (None: from its start), the live one last; returns these eras."""
        eras = session.remaining(done)
        self.progress.start("loop", len(eras))
        with self.events.usage() as used:
            for era in eras:
                report = session.advance(era)
                self.events.write("era", **report.as_event())
                for text in report.learnt.notes:
                    self.note(f"era {era}: {text}")
                shown = [f"era {era}, {report.n_open} ran", session.running.as_text()]
                self.progress.advance(", ".join(filter(None, shown)))
        self.events.write("usage", stage="loop", **used)
        session.finish()
        return tuple(eras)

    def write_live(self, session: Session) -> tuple[int, int] | None:
        """Write `live_predictions.csv` and `live.json`; returns rows and open models, or None without live rows.

        Raises:
            SubmitError: the predictions are not a submission for these rows.
        """
        live = session.live
        if live is None:
            return None
        record = session.journal.read(session.timeline.live_era)
        frame = pd.DataFrame({"id": live.ids.to_pylist(), "prediction": record.prediction_N})
        write_live_predictions(self.folder.path / FILE_NAME, frame, frame["id"])
        weights = {name: float(weight) for name, weight in zip(session.model_ids, record.weights_M, strict=True)}
        self.folder.write_json(LIVE_WEIGHTS, {"era": record.era, "rows": len(frame), "weights": weights})
        return live.index.rows, int(record.open_M.sum())

    def write_results(
        self, session: Session, features: Features, catalog: FeatureCatalog
    ) -> tuple[dict[str, Any], list[str]]:
        """Write the result files and the report's tables; returns metrics and warnings."""
        self.progress.start("results", 2)
        with self.events.stage("results"):
            metrics = session.results.write(session.journal)
        self.progress.advance()
        with self.events.stage("insights"):
            target, ops = self.config.data.target, self.backend.kernels
            warnings = write_insights(self.folder, features, catalog, self.data, target, ops)
        self.progress.advance()
        return metrics, warnings
