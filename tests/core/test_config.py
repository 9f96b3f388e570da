"""Configuration: round trip, defaults, and errors that name the key."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eravane.core.config import DataConfig, RunConfig, ZooConfig, load_config, parse_config, to_toml
from eravane.core.errors import ConfigError
from eravane.pipeline.demo import demo_config
from eravane.runstate.runfolder import RunFolder

CONFIGS = Path(__file__).parents[2] / "configs"


def test_toml_round_trip_keeps_every_key() -> None:
    config = parse_config({"seed": 3, "zoo": {"params": {"eta": 0.1}, "targets": ["a_20"]}, "time": {"score_lag": 7}})
    assert parse_config(tomllib.loads(to_toml(config))) == config


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4), TEXTS)
def test_whatever_a_configuration_holds_survives_toml(params: dict[str, object], name: str) -> None:
    config = parse_config({"zoo": {"params": params, "targets": [name]}, "data": {"target": name}})
    assert parse_config(tomllib.loads(to_toml(config))) == config


def test_values_of_numpy_and_tuples_become_plain() -> None:
    config = parse_config({"zoo": {"params": {"eta": np.float32(0.5), "max_depth": np.int64(3), "list": (1, 2)}}})
    assert config.zoo.params == {"eta": 0.5, "max_depth": 3, "list": [1, 2]}
    assert parse_config(tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize("value", [None, float("nan"), {1: 2}, np.zeros(2), object(), [None], {"a": {"b": None}}])
def test_a_free_table_takes_only_what_toml_holds(value: object) -> None:
    with pytest.raises(ConfigError, match=r"zoo\.params\.bad"):
        parse_config({"zoo": {"params": {"bad": value}}})


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(zoo=ZooConfig(params={"eta": None})),
        RunConfig(zoo=ZooConfig(trees="many")),  # type: ignore[arg-type]
        RunConfig(data=DataConfig(target=None)),  # type: ignore[arg-type]
    ],
)
def test_a_configuration_built_past_the_parser_is_checked_before_it_is_written(
    config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        RunFolder.create(tmp_path / "run", config)
    assert not (tmp_path / "run" / "run.toml").exists()


def test_configurations_share_no_default() -> None:
    for one, other in ((RunConfig(), RunConfig()), (parse_config({}), parse_config({}))):
        one.zoo.params["eta"] = 0.3
        one.zoo.members["a"] = "b.parquet"
        assert other.zoo.params == other.zoo.members == {} == RunConfig().zoo.params


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_ready_configurations_load(path: Path) -> None:
    config = load_config(path)
    assert parse_config(tomllib.loads(to_toml(config))) == config


def test_every_key_is_documented() -> None:
    for section in dataclasses.fields(RunConfig):
        kind = type(getattr(RunConfig(), section.name))
        for item in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else [section]:
            assert item.metadata.get("doc"), f"{section.name}.{item.name} has no sentence"


def test_digest_ignores_where_it_runs() -> None:
    base = RunConfig()
    assert parse_config({"compute": {"workers": 2, "device": "cpu"}}).digest() == base.digest()
    assert parse_config({"zoo": {"trees": 201}}).digest() != base.digest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"zoo": {"tree": 3}}, r"zoo\.tree.*did you mean 'zoo\.trees'"),
        ({"zo": {}}, r"'zo'.*'zoo'"),
        ({"zoo": {"trees": 0}}, "at least 1 and at most 1,000,000, given 0"),
        ({"zoo": {"trees": "many"}}, "is a int, given 'many'"),
        ({"zoo": {"trees": True}}, "is a int, given True"),
        ({"zoo": 3}, "zoo is a table"),
        ({"loop": {"update": "refti"}}, "did you mean 'refit'"),
        ({"data": {"feature_sets": "small"}}, "is a list of str"),
        ({"postprocess": {"proportion": 1.7}}, "at most 1"),
        ({"gate": {"experts": ["ridges", "regime"]}}, r"gate\.experts.*did you mean 'regimes'"),
        (
            {"gate": {"experts": "ridges"}},
            "is a list of screened, best_single, ridges, regimes, network, given 'ridges'",
        ),
        ({"zoo": {"residual": float("nan")}}, "is a finite number, given nan"),
    ],
)
def test_mistakes_are_named(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(content)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 3")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 10_000)
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(tmp_path / "deep.toml")


def test_the_demo_runs_its_ready_configuration() -> None:
    assert load_config(CONFIGS / "demo.toml") == demo_config("small")
