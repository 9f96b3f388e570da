"""Editions of the configuration: what a key that is left out means to a run, and keys and values that are no more.

Every run keeps in `run.toml` the edition under which it began, and continues under it. A change that would alter the
results of a running run is made here, in one of three ways:

- A new key, or another default: `setting(..., earlier={EDITION - 1: what leaving it out meant until then})`.
- A key or value that is removed or renamed: an entry of `RETIRED`.
- Anything else: an entry of `CHANGES`; the code keeps the old behaviour for old runs (`kept`), which `--adopt` moves to
  the present one, or the entry lets `eravane step` and `run --resume` ask once, with `--adopt`.

The edition rises with the first such change after a release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

EDITION = 2
"""Edition 1: eravane 0.1.0. Edition 2: the releases after it."""

FIRST_EDITION = 1


@dataclass(frozen=True)
class Retired:
    """A key that configurations no longer have, or values that it no longer takes.

    Attributes:
        since: release without it.
        instead: what a user writes instead, as the end of a sentence.
        values: the values that are gone; None for the whole key.
        same: whether a run was computed as it is without the key, given its value and its section: such runs go on
            unasked.
        renamed: the key's new name in its section, which takes the value over.
        becomes: the key's value in a run that adopts the change; None leaves the key out.
    """

    since: str
    instead: str
    values: tuple[object, ...] | None = None
    same: Callable[[object, Mapping[str, object]], bool] = lambda _value, _section: False
    renamed: str = ""
    becomes: object = None

    def concerns(self, value: object) -> bool:
        """Whether a key of this value is affected."""
        return self.values is None or value in self.values


_CONSTANTS: dict[str, object] = {
    "time.report_start": 0,
    "prepare.neighbours": 5,
    "prepare.low": 0.001,
    "prepare.high": 0.999,
    "gate.half_lives": [4.0, 16.0, 64.0],
    "gate.ridge_half_life": 16.0,
    "gate.change_every": 52.0,
    "gate.keep_ratio": 0.7,
    "gate.keep_penalty": 1.0,
    "gate.amplify": 2.0,
    "gate.prototypes": 4,
    "gate.prototype_weight": 0.1,
    "gate.prototype_margin": 4.0,
    "gate.hidden": 8,
    "gate.noise": 1.0,
    "gate.rate": 0.02,
    "gate.decay": 0.01,
    "gate.warm_steps": 2,
    "gate.replay": 128,
    "gate.ridge": 1.0,
    "gate.rest_after": 4,
    "loop.window": 0,
    "loop.append_window": 40,
    "loop.blocks": 20,
    "loop.leaves_half_life": 24.0,
}
"""Keys that are constants now, and their last defaults."""


def _constant(usual: object) -> Retired:
    instead = f"leave it out; it is {usual} in every run"
    return Retired(since="0.2.0", instead=instead, same=lambda value, _section: value == usual)


RETIRED: dict[str, Retired] = {
    "gate.objective": Retired(
        since="0.2.0",
        instead='write aim = "payout" at the top of the file',
        same=lambda value, _section: value == "corr",
    ),
    "gate.gradient": Retired(
        since="0.2.0",
        instead='leave it out; the gradient is exact, and REINFORCE with reward = "dynamos"',
        same=lambda value, _section: value == "exact",
    ),
    "gate.gates": Retired(
        since="0.2.0",
        instead="leave it out; gates are Bernoulli's, and gate.max_active caps them",
        same=lambda value, _section: value == "bernoulli",
    ),
    "gate.experts": Retired(
        since="0.2.0",
        instead='write "ridges" and "regimes"; change_points lost to the ridges on every real series',
        values=(["ridge", "change_points"], ["ridge"], ["change_points"], ["change_points", "ridge"], []),
    ),
    **{name: _constant(usual) for name, usual in _CONSTANTS.items()},
    "compute.cluster": Retired(
        since="0.2.0", instead='write scheduler = "local"', same=lambda value, _section: value == "none"
    ),
    "prepare.frozen": Retired(
        since="0.2.0",
        instead='leave it out; impute = "knn" looks for neighbours in a model\'s own features',
        same=lambda value, section: not value or section.get("impute") != "knn",
    ),
    "loop.update": Retired(
        since="0.2.0",
        instead='it was best in none of the measured drifts; write "refit+leaves"',
        values=("auto",),
        becomes="refit+leaves",
    ),
    "loop.auto_half_life": Retired(
        since="0.2.0", instead='leave it out; update = "auto" is no more', same=lambda _value, _section: True
    ),
}
"""By dotted key."""


@dataclass(frozen=True)
class Change:
    """A change of results that is no key's.

    Attributes:
        edition: the first edition that has it.
        what: what is computed otherwise, as a clause.
        affects: whether it changes the results of a run of this configuration.
        kept: whether older runs go on without it until they adopt it; they are asked otherwise.
    """

    edition: int
    what: str
    affects: Callable[[Any], bool]
    kept: bool = False


CHANGES: tuple[Change, ...] = (
    Change(
        edition=2,
        what="the gate weighs by other experts, mixed by another rule",
        affects=lambda _config: True,
        kept=True,
    ),
    Change(
        edition=2,
        what="leaves of trees on floats follow the rows that they predict, not those whose bins lie nearest",
        affects=lambda config: "leaves" in config.loop.update,
        kept=True,
    ),
)


def meaning_left_out(default: object, earlier: Mapping[int, object], edition: int) -> object:
    """Meaning of a key that is left out, under an edition.

    Args:
        default: what it means today.
        earlier: last edition of another meaning -> that meaning.
        edition: the edition asked for.
    """
    later = [last for last in earlier if last >= edition]
    return earlier[min(later)] if later else default
