"""The store that a run reads: the one it is given, or one in the cache, shared by runs of the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eravane.core.config import DataConfig, digest_of
from eravane.core.errors import ChangedDataError, ConfigError, RunError
from eravane.data.catalog import FEATURES_JSON, FeatureCatalog
from eravane.data.ingest import ingest
from eravane.data.store.digest import digest_file
from eravane.data.store.manifest import MANIFEST, Manifest, SourceRecord
from eravane.data.store.snapshot import open_as_of
from eravane.data.store.store import EraStore
from eravane.synth import TRUTH
from eravane.zoo.outside import Member

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


def begun_store(data: Path, begun: Mapping[str, str], say: Callable[[str], None]) -> EraStore | None:
    """The store that an interrupted run goes on with; None where it is gone and has to be made of the files again.

    Args:
        data: a store, or a folder of parquet files, as it is now.
        begun: what the run's manifest says of its data.
        say: called with a line where `data` is not what the run was begun on.

    Raises:
        RunError: the store holds something else, and what the run was begun on is not kept.
    """
    if not (Path(begun["store"]) / MANIFEST).is_file():
        return None
    store = open_as_of(Path(begun["store"]), begun["fingerprint"])
    require_begun(store, begun)
    other = _unlike(data, store)
    if other:
        say(f"{other} changed since the run began, and is not read: it goes on with the data kept in {store.path}")
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
    """What in `data` is not as the store took it in, as the subject of a sentence; empty where all of it is."""
    if (data / MANIFEST).is_file():
        return "" if Manifest.read(data).fingerprint() == store.fingerprint else f"the store {data}"
    other = [name for name, record in store.manifest.sources.items() if not _fits(data / name, record)]
    return f"{', '.join(other)} in {data}" if other else ""


def _fits(path: Path, record: SourceRecord) -> bool:
    return path.is_file() and path.stat().st_size == record.size and digest_file(path) == record.digest


def beside(catalog: FeatureCatalog, members: Sequence[Member]) -> dict[str, str]:
    """Digests of what a run reads beside its store: the features of its sets, and members' predictions of history."""
    found = {
        f"the member {member.name!r}": hashlib.sha256(member.values_N.tobytes()).hexdigest()[:16] for member in members
    }
    return {FEATURES_JSON: digest_of([catalog.sets, catalog.groups]), **found}


def require_beside(found: Mapping[str, str], begun: Mapping[str, Any]) -> None:
    """Refuse to go on with other features or members than those that a run was begun with.

    Raises:
        RunError: one of them differs.
    """
    for name, digest in begun.get(BESIDE, {}).items():
        if found.get(name) != digest:
            raise RunError(
                f"{name} is not as it was when the run began, and the run would go on with other data; give it as it "
                "was, or start a new run"
            )


def described(data: Path, store: EraStore) -> dict[str, Any]:
    """A run's data in its manifest: their path, the store's content, and whether `synth` made them."""
    made = (data / TRUTH).is_file()
    return {"path": str(data.resolve()), "store": str(store.home), "fingerprint": store.fingerprint, "made": made}
