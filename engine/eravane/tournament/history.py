"""A model's live scores as they came, round by round; what a resolved round scored never changes here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eravane.core.errors import RunError
from eravane.core.files import write_atomically
from eravane.scoring.payout import PayoutRule

FOLDER = "live_scores"


@dataclass(frozen=True)
class RoundScore:
    """The newest score of a metric in a round; `resolved`: whether its last day has passed."""

    metric: str
    round: int
    day: int
    value: float
    resolved: bool


@dataclass(frozen=True)
class History:
    """Scores and payout rules by round.

    Attributes:
        scores: (metric, round) -> score.
        rules: round -> the rule that the tournament stated for it.
        notes: resolved scores that the tournament now states otherwise; the first statement is kept.
    """

    scores: Mapping[tuple[str, int], RoundScore]
    rules: Mapping[int, PayoutRule]
    notes: tuple[str, ...] = ()

    def with_news(self, listed: Sequence[Mapping[str, object]], rules: Mapping[int, PayoutRule]) -> History:
        """The history with the tournament's present scores; resolved rounds and their rules stay unchanged.

        Args:
            listed: scores with numerapi's fields displayName, roundNumber, day, value, resolved.
            rules: round -> its rule.

        Raises:
            KeyError, TypeError, ValueError: a score has another shape.
        """
        scores, notes = dict(self.scores), list[str]()
        for score in newest_of_rounds(listed):
            known = scores.get((score.metric, score.round))
            if known is None or not known.resolved:
                scores[score.metric, score.round] = score
            elif score.resolved and score.value != known.value:
                notes.append(
                    f"round {score.round} resolved with {score.metric} {known.value:g}, the tournament now states "
                    f"{score.value:g}; the first is kept"
                )
        resolved = {score.round for score in self.scores.values() if score.resolved}
        frozen = {number: rule for number, rule in self.rules.items() if number in resolved}
        return History(scores, {**self.rules, **rules, **frozen}, tuple(notes))

    def write(self, run: Path, model: str) -> None:
        """Write `live_scores/MODEL.json` in a run folder."""
        folder = run / FOLDER
        folder.mkdir(exist_ok=True)
        content = {
            "scores": [vars(score) for _, score in sorted(self.scores.items())],
            "rules": {str(number): rule.as_dict() for number, rule in sorted(self.rules.items())},
        }
        write_atomically(folder / f"{model}.json", (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def read(cls, run: Path | None, model: str) -> History:
        """The history of a model in a run folder; empty where there is none.

        Raises:
            RunError: the file is damaged.
        """
        if run is None or not (path := run / FOLDER / f"{model}.json").is_file():
            return cls({}, {})
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = [RoundScore(**entry) for entry in content["scores"]]
            rules = {int(number): PayoutRule.from_dict(rule) for number, rule in content["rules"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise RunError(f"{path} is damaged; move it away, what the tournament still lists is read again") from None
        return cls({(score.metric, score.round): score for score in scores}, rules)


def newest_of_rounds(listed: Sequence[Mapping[str, Any]]) -> list[RoundScore]:
    """The newest value of every metric and round; a round is resolved when the entry of its last day is.

    Raises:
        KeyError, TypeError, ValueError: a score has another shape.
    """
    newest: dict[tuple[str, int], RoundScore] = {}
    last: dict[tuple[str, int], tuple[int, bool]] = {}
    for entry in listed:
        key = str(entry["displayName"]), int(entry["roundNumber"])
        day, resolved, value = int(entry["day"] or 0), bool(entry["resolved"]), entry["value"]
        last[key] = max(last.get(key, (-1, False)), (day, resolved))
        if value is not None and float(value) == float(value) and (key not in newest or newest[key].day <= day):
            newest[key] = RoundScore(*key, day, float(value), False)
    return [replace(score, resolved=last[key][1]) for key, score in sorted(newest.items())]
