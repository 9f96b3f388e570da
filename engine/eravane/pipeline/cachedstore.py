"""The store that a run reads: the one it is given, or one in the cache, shared by runs of the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from eravane.core.config import DataConfig, RunConfig, digest_of
from eravane.core.errors import ChangedDataError, ConfigError, RunError
from eravane.data.catalog import BENCHMARKS, FEATURES_JSON, META_MODEL, REFERENCES, FeatureCatalog
from eravane.data.ingest import ingest
from eravane.data.store.digest import digest_file
from eravane.data.store.manifest import MANIFEST, Manifest, SourceRecord
from eravane.data.store.snapshot import open_as_of
from eravane.data.store.store import EraStore
from eravane.synth import TRUTH
from eravane.zoo.outside import Member, references_read

# In the manifest, under `data`: digests of what is read beside the store.
BESIDE = "beside"


def cached_store(
    data: Path,
    config: DataConfig,
    catalog: FeatureCatalog,
    cache: Path,
    *,
    rebuild: bool,
    wait: Callable[[str], None] | None = None,
) -> EraStore:
    """Open the store of a run, brought up to date with its files; its path is absolute.

    Args:
        data: a store, or a folder of parquet files.
        config: the [data] section.
        catalog: the features to keep.
        cache: folder that holds the stores of earlier runs.
        rebuild: delete the store that earlier runs made of this data, and ingest again.
        wait: called with a line while another process is ingesting the same data; None does not wait.

    Raises:
        ConfigError: a store of the user's is to be deleted.
        DataError: the files break the dataset's contract, or old eras changed since an earlier run.
    """
    if (data / MANIFEST).is_file():
        if rebuild:
            raise ConfigError(f"{data} is a store that you made; delete it, `eravane ingest` makes it again")
        return EraStore.open(data.resolve())
    first, last = config.first_era or None, config.last_era or None
    name = digest_of([str(data.resolve()), list(catalog.columns), first, last])
    path = cache.resolve() / "stores" / name
    try:
        return ingest(
            data, path, columns=list(catalog.columns), first_era=first, last_era=last, wait=wait, rebuild=rebuild
        )
    except ChangedDataError as error:
        advice = f"--rebuild-store replaces the store that earlier runs of this data made in {path}"
        raise ChangedDataError(error.fact, advice) from None


def begun_store(data: Path, begun: Mapping[str, str], note: Callable[[str], None]) -> EraStore | None:
    """The store that an interrupted run goes on with; None where it is gone and has to be made of the files again.

    Args:
        data: a store, or a folder of parquet files, as it is now.
        begun: what the run's manifest says of its data.
        note: called with a line where `data` is not what the run was begun on.

    Raises:
        RunError: the store holds something else, and what the run was begun on is not kept.
    """
    if not (Path(begun["store"]) / MANIFEST).is_file():
        return None
    store = open_as_of(Path(begun["store"]), begun["fingerprint"])
    require_begun(store, begun)
    other = _unlike(data, store)
    if other:
        note(f"{other} changed since the run began, and is not read: it goes on with the data kept in {store.path}")
    return store


def require_begun(store: EraStore, begun: Mapping[str, str]) -> None:
    """Refuse a store that is not what the run was begun on.

    Raises:
        RunError: it is not.
    """
    if store.fingerprint != begun["fingerprint"]:
        raise RunError(
            f"the run was begun on data {begun['fingerprint']}, and {store.home} now holds {store.fingerprint}: newer "
            "or other files were taken in, and those of the run are not kept; start a new run, or give the old files"
        )


def _unlike(data: Path, store: EraStore) -> str:
    """Files of `data` that differ from what the store took in, as the subject of a sentence; empty where none does."""
    if (data / MANIFEST).is_file():
        return "" if Manifest.read(data).fingerprint() == store.fingerprint else f"the store {data}"
    other = [name for name, record in store.manifest.sources.items() if not _fits(data / name, record)]
    return f"{', '.join(other)} in {data}" if other else ""


def _fits(path: Path, record: SourceRecord) -> bool:
    return path.is_file() and path.stat().st_size == record.size and digest_file(path) == record.digest


class Beside:
    """Inputs of a run that lie beside its store: feature sets, members, references.

    Args:
        config, data, store: the run's.
        catalog: the features of its sets; None where those are the store's own.
        members: predictions from outside.

    Raises:
        ConfigError: the dataset lacks a reference.
    """

    def __init__(
        self, config: RunConfig, data: Path, store: EraStore, catalog: FeatureCatalog | None, members: Sequence[Member]
    ) -> None:
        self._index, self._sets = store.index, None if catalog is None else digest_of([catalog.sets, catalog.groups])
        self._columns = {f"the member {member.name!r}": (member.values_N, max(member.eras)) for member in members}
        for name, values_N in references_read(config, data, store).items():
            newest = int(store.index.per_row()[~np.isnan(values_N)].max())
            self._columns[name] = values_N.astype(np.float32), newest

    def digests(self) -> dict[str, str]:
        """Name -> digest; of predictions that of all eras up to the newest that has some, with "@" and that era."""
        sets = {} if self._sets is None else {FEATURES_JSON: self._sets}
        return sets | {name: f"{self._digest(name, last)}@{last}" for name, (_, last) in self._columns.items()}

    def unlike(self, noted: Mapping[str, str]) -> list[str]:
        """Names of what is not as noted in a run's manifest; eras that came since then do not count."""
        found = []
        for name, text in noted.items():
            digest, _, last = text.partition("@")
            if name == FEATURES_JSON:
                same = self._sets in (None, digest)
            else:
                same = name in self._columns and self._digest(name, int(last or self._index.last)) == digest
            found += [] if same else [name]
        return found

    def require(self, noted: Mapping[str, str]) -> None:
        """Refuse to go on with others than those that a run was begun with.

        Raises:
            RunError: one of them differs.
        """
        for name in self.unlike(noted):
            raise RunError(
                f"{name} is not as it was when the run began, and the run would go on with other data; give it as it "
                "was, or start a new run"
            )

    def _digest(self, name: str, last: int) -> str:
        values_N = self._columns[name][0][self._index.span(self._index.first, last)]
        return hashlib.sha256(values_N.tobytes()).hexdigest()[:16]


def score_references(data: Path) -> list[str]:
    """Files of the dataset that hold references, which scores are measured against."""
    return [name for name in (META_MODEL, *BENCHMARKS) if (data / name).exists()]


def described(data: Path, store: EraStore) -> dict[str, object]:
    """A run's data in its manifest: their path, the store's content, and whether `synth` made them, and references."""
    made = (data / TRUTH).is_file()
    return {
        "path": str(data.resolve()),
        "store": str(store.home),
        "fingerprint": store.fingerprint,
        "made": made,
        REFERENCES: score_references(data),
    }
