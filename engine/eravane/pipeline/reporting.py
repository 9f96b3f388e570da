"""The report of a run, finished or not."""

from __future__ import annotations

from pathlib import Path

from eravane.calendar.timeline import Timeline
from eravane.data.features import Features
from eravane.data.store.snapshot import open_as_of
from eravane.loop.pool import POOL, read_pool
from eravane.loop.results import ResultFiles
from eravane.loop.session import ERAS
from eravane.report import write_report
from eravane.runstate.journal import Journal
from eravane.runstate.runfolder import RunFolder


def report(run: Path) -> Path:
    """Write `report.html` again, of an unfinished run from its journal so far; returns its path.

    Raises:
        RunError: the folder is no run, or a file of it is missing or damaged.
        StoreError: an unfinished run's store is gone.
    """
    assemble(run)
    return write_report(run)


def assemble(run: Path) -> bool:
    """Write predictions, weights, scores and metrics of an unfinished run, as far as its loop has come.

    The run itself is not disturbed: at its end it writes the same files again.

    Args:
        run: the run folder.

    Returns:
        Whether anything was written; nothing is for a finished run, or one whose loop has not begun.

    Raises:
        RunError: a file of the run folder is missing or damaged.
        StoreError: the run's store is gone.
    """
    journal = Journal(run / ERAS)
    if not (run / "checkpoints" / POOL).is_file() or not journal.eras():
        return False
    folder = RunFolder.open(run)
    manifest = folder.manifest()
    if manifest.get("status") == "complete":
        return False
    from eravane_kernels import cpu

    config, (specs, _) = folder.config(), read_pool(run)
    store = open_as_of(Path(manifest["data"]["store"]), manifest["data"]["fingerprint"])
    features = Features.open(store.path, config.prepare)
    timeline = Timeline.from_manifest(manifest, features.store.index)
    model_ids = tuple(spec.model_id for spec in specs)
    ResultFiles(folder, features, model_ids, timeline, config.data.target, cpu).write(journal)
    return True
