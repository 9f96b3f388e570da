"""UBJ against XGBoost's own: its JSON says the same, and what was read is written back to the byte."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from eravane.learners.ubj import JoinedTrees, dump, load


def _raw(form: str, **params: Any) -> bytes:
    rng = np.random.default_rng(3)
    values_NC = rng.integers(-1, 5, (500, 7)).astype(np.float32)
    values_NC[rng.random(values_NC.shape) < 0.1] = np.nan
    label_N = rng.random(500) if "num_class" not in params else rng.integers(0, 3, 500)
    booster = xgb.train({"max_depth": 4, "nthread": 1, **params}, xgb.DMatrix(values_NC, label_N), 150)
    booster.set_attr(best="7", note="ä")
    return bytes(booster.save_raw(form))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def _same(ours: Any, theirs: Any) -> None:
    """Equal up to the decimals of JSON, which stand for a float32."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            _same(ours[key], value)
    elif isinstance(theirs, list) and theirs and isinstance(theirs[0], (int, float)):
        np.testing.assert_array_equal(np.array(ours, np.float32), np.array(theirs, np.float32))
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            _same(one, other)
    else:
        assert ours == theirs


@pytest.mark.parametrize("params", [{}, {"booster": "dart"}, {"objective": "multi:softprob", "num_class": 3}])
def test_it_reads_what_xgboost_writes(params: dict[str, Any]) -> None:
    found = load(_raw("ubj", **params))
    _same(_plain(found), json.loads(_raw("json", **params)))
    tree = found["learner"]["gradient_booster"]
    tree = (tree.get("gbtree") or tree)["model"]["trees"][3]
    assert isinstance(tree["split_conditions"], np.ndarray)


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_trees_are_read_joined(depth: int) -> None:
    """Also those whose numbers take one, two and four bytes."""
    raw = _raw("ubj", max_depth=depth)
    many = load(raw)["learner"]["gradient_booster"]["model"]
    many["trees"] = [{**tree, "id": number * 251} for number, tree in enumerate(many["trees"])]
    for data in (raw, dump({"trees": many["trees"]})):
        found = load(data, joined=True)
        joined = (found.get("learner") or {"gradient_booster": {"model": found}})["gradient_booster"]["model"]["trees"]
        assert isinstance(joined, JoinedTrees)
        for trees, some in ((many["trees"], joined), (many["trees"][3:90:7], joined.picked(slice(3, 90, 7)))):
            assert some.counts == [len(tree["parents"]) for tree in trees]
            for name, values in some.values.items():
                np.testing.assert_array_equal(values, np.concatenate([tree[name] for tree in trees]))


def test_trees_of_another_layout_are_read_one_by_one() -> None:
    plain = load(_raw("ubj"))
    trees = plain["learner"]["gradient_booster"]["model"]["trees"]
    for changed in ({"added": "1"}, {"categories": np.array([3], "i4")}, {"split_type": np.zeros(1, "u1")}):
        plain["learner"]["gradient_booster"]["model"]["trees"] = [*trees[:7], {**trees[7], **changed}]
        found = load(dump(plain), joined=True)["learner"]["gradient_booster"]["model"]["trees"]
        _same(_plain(found), _plain(load(dump(plain))["learner"]["gradient_booster"]["model"]["trees"]))
        assert isinstance(found, list)
    assert load(dump({"trees": []}), joined=True)["trees"].counts == []
    raw = _raw("ubj")
    for end in (len(raw) // 2, len(raw) - 1):
        with pytest.raises(ValueError, match="not the UBJ that XGBoost writes"):
            load(raw[:end], joined=True)


def test_what_was_read_is_written_back() -> None:
    raw = _raw("ubj")
    assert dump(load(raw)) == raw


@pytest.mark.parametrize("value", [0, 126, 127, -127, -128, 32766, 32767, 2**31 - 2, 2**31 - 1, -(2**31), 2**62])
def test_integers_keep_their_value(value: int) -> None:
    assert load(dump({"x": [value, "y"]})) == {"x": [value, "y"]}


@pytest.mark.parametrize(
    "values",
    [[], [""], ["int"] * 500, ["ä", "", "b" * 300], ["int"] * 3 + ["float"], ["a", "b", 7, "S"], ["a", "a", 7]],
)
def test_lists_of_texts_are_read_whole(values: list[Any]) -> None:
    assert load(dump({"x": values, "S": "S"})) == {"x": values, "S": "S"}
    for end in range(len(dump(values))):
        with pytest.raises(ValueError, match="not the UBJ that XGBoost writes"):
            load(dump(values)[:end])


def test_damaged_bytes_are_refused() -> None:
    raw = _raw("ubj")
    text = b"SL" + (1).to_bytes(8, "big") + b"a"
    many = [b"[#L" + (1 << 62).to_bytes(8, "big") + text * times for times in (1, 9)]
    size = raw.index(b"#L") + 2
    negative = raw[:size] + b"\xff" * 8 + raw[size + 8 :]
    nested = (b"[#L" + (1).to_bytes(8, "big")) * 5000
    for damaged in (raw[:-1], raw[: len(raw) // 2], raw + b"x", b"", b"x" + raw[1:], b"D1", negative, nested, *many):
        with pytest.raises(ValueError, match="not the UBJ that XGBoost writes"):
            load(damaged)
