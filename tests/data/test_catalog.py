"""Sets, groups and cells, on a small file and on the real one of v5.3."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from eravane.core.errors import ConfigError, DataError
from eravane.data.catalog import FeatureCatalog

SETS = {
    "small": ["c", "a"],
    "medium": ["a", "b", "d"],
    "all": ["a", "b", "c", "d", "e"],
    "rain": ["a", "e"],
    "wisdom": ["b", "a"],
    "v2_equivalent_features": ["a"],
    "fncv3_features": ["b"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "features.json"
    file.write_text(json.dumps({"feature_sets": SETS, "targets": ["target"]}))
    return file


def test_cells_keep_the_order_of_the_set_and_skip_empty_ones(path: Path) -> None:
    catalog = FeatureCatalog.load(path)
    cells = {(cell.feature_set, cell.group): cell.columns for cell in catalog.cells()}
    assert cells["small", "all"] == ("c", "a")
    assert cells["medium", "wisdom"] == ("a", "b")
    assert cells["small", "rain"] == ("a",)
    assert len(cells) == 3 + 6
    assert catalog.columns == ("a", "b", "c", "d", "e")
    assert catalog.empty_cells() == []


def test_large_is_all_and_a_chosen_group_can_miss_a_set(path: Path) -> None:
    catalog = FeatureCatalog.load(path, sets=["large", "small"], groups=["wisdom"])
    assert list(catalog.sets) == ["all", "small"]
    only = FeatureCatalog({"small": ("c",)}, {"wisdom": ("a", "b")})
    assert only.empty_cells() == [("small", "wisdom")]
    assert [cell.name for cell in only.cells()] == ["small.all"]


def test_leave_one_group_out(path: Path) -> None:
    cells = {cell.name: cell.columns for cell in FeatureCatalog.load(path).cells(leave_one_out=True)}
    assert cells["medium.-rain"] == ("b", "d")


def test_unknown_names_and_broken_files(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="feature set 'tiny'"):
        FeatureCatalog.load(path, sets=["tiny"])
    with pytest.raises(ConfigError, match="feature group 'snow'"):
        FeatureCatalog.load(path, groups=["snow"])
    with pytest.raises(DataError, match="missing"):
        FeatureCatalog.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('{"feature_sets":')
    with pytest.raises(DataError, match="not JSON"):
        FeatureCatalog.load(tmp_path / "broken.json")
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(DataError, match="feature_sets"):
        FeatureCatalog.load(tmp_path / "empty.json")


def test_nan_literals_of_version_4_are_read(tmp_path: Path) -> None:
    file = tmp_path / "features.json"
    file.write_text('{"feature_stats": {"a": {"arl": NaN}}, "feature_sets": {"small": ["a"]}}')
    assert FeatureCatalog.load(file, sets=["small"]).columns == ("a",)


def test_the_real_file_has_34_cells_and_3_whole_sets(real_features_json: Path) -> None:
    catalog = FeatureCatalog.load(real_features_json)
    cells = catalog.cells()
    assert len(catalog.columns) == 3555
    assert len(catalog.groups) == 13
    assert (len(cells), len(catalog.empty_cells())) == (37, 5)
    sizes = {cell.name: len(cell.columns) for cell in cells}
    assert (sizes["small.rain"], sizes["medium.constitution"], sizes["all.quantum"]) == (20, 134, 807)


def test_a_pipe_in_place_of_the_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "features.json")
    with pytest.raises(DataError, match=r"features\.json is a pipe or a device"):
        FeatureCatalog.load(tmp_path / "features.json")
