"""Names of a made dataset: features, groups, sets and targets, invented or read from a features.json."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eravane.core.errors import ConfigError, DataError
from eravane.synth.config import SynthConfig

GROUP_NAMES = (
    "intelligence", "charisma", "strength", "dexterity", "constitution", "wisdom", "agility",
    "serenity", "sunshine", "rain", "midnight", "faith", "quantum",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The names of a dataset and where its features belong.

    Attributes:
        features: feature names in file order.
        groups: group names.
        home_F: int64, the group whose factor moves a feature; -1 for none.
        sets: feature set or group name -> sorted feature names, as features.json holds them.
        targets: target names without the alias `target`.
        main: position of the main target in `targets`.
    """

    features: tuple[str, ...]
    groups: tuple[str, ...]
    home_F: NDArray[np.int64]
    sets: dict[str, list[str]]
    targets: tuple[str, ...]
    main: int

    def document(self) -> dict[str, object]:
        """Return the content of features.json: sets, and targets with the alias last."""
        return {"feature_sets": self.sets, "targets": [*self.targets, "target"]}


def build_layout(config: SynthConfig) -> Layout:
    """Return the names for a configuration, read from `features_json` where one is given.

    Raises:
        DataError: the file is not a features.json with named groups.
        ConfigError: the main target is not one of its targets.
    """
    return _invent(config) if config.features_json is None else _read(config)


def _invent(config: SynthConfig) -> Layout:
    """Scatter features over groups, give some a second group, and draw the sets."""
    rng = np.random.default_rng([config.seed, 1])
    n_features, n_groups = config.features, config.groups
    names = tuple(f"feature_{i:04d}" for i in range(1, n_features + 1))
    home_F = rng.permutation(np.arange(n_features) % n_groups)
    second_F = np.full(n_features, -1)
    if n_groups > 1:
        double = rng.permutation(n_features)[: round(config.overlap * n_features)]
        second_F[double] = (home_F[double] + rng.integers(1, n_groups, double.size)) % n_groups
    groups = GROUP_NAMES[:n_groups]
    sets = {name: [names[f] for f in np.flatnonzero((home_F == g) | (second_F == g))] for g, name in enumerate(groups)}
    tiers = _draw_tiers(rng, np.maximum(home_F, second_F), n_groups)
    sets = {tier: [names[f] for f in columns] for tier, columns in tiers.items()} | sets
    return Layout(names, groups, home_F, sets, config.targets, config.targets.index(config.main_target))


def _draw_tiers(rng: np.random.Generator, latest_F: NDArray[np.int64], n_groups: int) -> dict[str, NDArray[np.int64]]:
    """Return sorted columns of small, medium, all and fncv3_features.

    As in the real file small is mostly outside medium, and neither reaches the newest groups (small not the
    last two, medium not the last), so that some set x group cells are empty.
    """
    n_features = latest_F.size
    order = rng.permutation(n_features)
    newest = n_groups - 1 if n_groups > 3 else n_groups
    in_medium = order[latest_F[order] < newest][: max(1, round(0.4 * n_features))]
    rest = order[latest_F[order] < min(newest, n_groups - 2 if n_groups > 3 else n_groups)]
    n_small = max(2, round(0.15 * n_features))
    inside = rest[np.isin(rest, in_medium)][: n_small // 3]
    outside = rest[~np.isin(rest, in_medium)][: n_small - inside.size]
    return {
        "small": np.sort(np.concatenate([inside, outside])),
        "medium": np.sort(in_medium),
        "all": np.arange(n_features),
        "fncv3_features": np.sort(order[: max(1, round(0.11 * n_features))]),
    }


def _read(config: SynthConfig) -> Layout:
    """Read names and groups from a features.json; a feature's home is the first group that lists it."""
    assert config.features_json is not None
    try:
        document = json.loads(config.features_json.read_text(encoding="utf-8"))
        sets: dict[str, list[str]] = {str(k): list(v) for k, v in document["feature_sets"].items()}
        targets = tuple(t for t in document["targets"] if t != "target")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"synth: {config.features_json} is not a Numerai features.json "
            f"(an object with feature_sets and targets): {error}"
        ) from error
    groups = tuple(g for g in GROUP_NAMES if g in sets)
    if "all" not in sets or not groups:
        raise DataError(f"synth: {config.features_json} lacks the set 'all' or the named groups {GROUP_NAMES}")
    if config.main_target not in targets:
        raise ConfigError(f"synth: main_target {config.main_target!r} is not in {config.features_json}: {targets}")
    features = tuple(sets["all"])
    home = {name: g for g in reversed(range(len(groups))) for name in sets[groups[g]]}
    home_F = np.array([home.get(name, -1) for name in features], dtype=np.int64)
    return Layout(features, groups, home_F, sets, targets, targets.index(config.main_target))
