"""Facts in a gate's state beside arrays, read back with types checked: its pool, configuration and payout rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from eravane.core.config import FirstGateConfig, GateConfig
from eravane.core.editions import EDITION, FIRST_EDITION
from eravane.core.errors import ConfigError, LayoutError
from eravane.core.layout import value_of
from eravane.core.settings import Builder
from eravane.gate.outcomes import GateModel
from eravane.scoring.payout import PayoutRule, noted_rule


def stored_models(values: Mapping[str, object]) -> list[GateModel]:
    """The pool, in the order of every array.

    Raises:
        LayoutError: it is missing, or no list of models.
    """
    names = tuple(GateModel.__dataclass_fields__)
    models = [
        GateModel(**{name: value_of(model, name, str) for name in names}) for model in value_of(values, "models", list)
    ]
    if not models:
        raise LayoutError("does not understand 'models': none are named")
    return models


def stored_config(values: Mapping[str, object], kind: type[GateConfig], without: Collection[str] = ()) -> GateConfig:
    """The [gate] section that the state was made under; keys that releases since removed are left out.

    Args:
        values: the state's; kind: the section, of the present edition or the first; without: keys to leave out.

    Raises:
        LayoutError: it is missing, or a value has another type or bounds.
    """
    names = kind.__dataclass_fields__.keys() - set(without)
    content = {name: entry for name, entry in value_of(values, "config", dict).items() if name in names}
    first = kind is FirstGateConfig
    try:
        builder = Builder("config", FIRST_EDITION if first else EDITION, {GateConfig: kind} if first else None)
        return builder.read(GateConfig, content).config
    except ConfigError as error:
        raise LayoutError(f"does not understand its configuration ({error})") from None


def stored_rule(values: Mapping[str, object], *, noted: bool = True) -> PayoutRule:
    """The payout rule that the state was made under; `noted`: whether it has to be there.

    Raises:
        LayoutError: it is missing, or no rule.
    """
    if noted:
        value_of(values, "payout", dict)
    try:
        return noted_rule(values)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise LayoutError(f"does not understand 'payout' ({error})") from None
