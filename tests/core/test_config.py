"""Configuration: round trip, defaults, and errors that name the key."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from eravane.core.config import RunConfig, load_config, parse_config, to_toml
from eravane.core.errors import ConfigError
from eravane.pipeline.demo import demo_config

CONFIGS = Path(__file__).parents[2] / "configs"


def test_toml_round_trip_keeps_every_key() -> None:
    config = parse_config({"seed": 3, "zoo": {"params": {"eta": 0.1}, "targets": ["a_20"]}, "time": {"score_lag": 7}})
    assert parse_config(tomllib.loads(to_toml(config))) == config


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
        ({"zoo": {"trees": 0}}, "at least 1, given 0"),
        ({"zoo": {"trees": "many"}}, "is a int, given 'many'"),
        ({"zoo": {"trees": True}}, "is a int, given True"),
        ({"zoo": 3}, "zoo is a table"),
        ({"loop": {"update": "refti"}}, "did you mean 'refit'"),
        ({"data": {"feature_sets": "small"}}, "is a list of str"),
        ({"prepare": {"low": 0.7}}, "at most 0.5"),
        ({"gate": {"experts": ["ridge", "changepoints"]}}, r"gate\.experts.*did you mean 'change_points'"),
        ({"gate": {"experts": "ridge"}}, "is a list of ridge, change_points, given 'ridge'"),
        ({"gate": {"change_every": float("nan")}}, "is a finite number, given nan"),
        ({"gate": {"half_lives": [4.0, float("inf")]}}, "is a finite number, given inf"),
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


def test_the_demo_runs_its_ready_configuration() -> None:
    assert load_config(CONFIGS / "demo.toml") == demo_config("small")
