"""GPUs that CUDA_VISIBLE_DEVICES leaves to this process, by CUDA's rules, and why it leaves none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Visible:
    """The GPUs that the variable leaves.

    Attributes:
        numbers: positions of whole GPUs, or names of MIG instances, in the order in which CUDA numbers them.
        problem: why none, or fewer than listed, are left; empty where all are.
    """

    numbers: tuple[int | str, ...]
    problem: str = ""


def visible(listed: str | None, uuids: Sequence[str]) -> Visible:
    """Read the variable: numbers, UUIDs or beginnings of one ("GPU-8932f9"), MIG instances ("MIG-...").

    CUDA ends the list at the first entry that names no GPU, and at one that it has named before knows none at all.

    Args:
        listed: the variable; None where it is not set.
        uuids: of the machine's GPUs, in the driver's order.
    """
    if listed is None:
        return Visible(tuple(range(len(uuids))))
    names = [part.strip() for part in listed.split(",")]
    if not names[0]:
        what = "empty" if len(names) == 1 else "begins with an empty entry"
        return Visible((), f"{VARIABLE} is set and {what}, which hides every GPU; unset it")
    found: list[int | str] = []
    for name in names:
        number = _number(name, uuids)
        if number is None:
            return Visible(tuple(found), _unknown(name, listed, uuids, len(found)))
        if number in found:
            return Visible((), f"{VARIABLE}={listed!r} names a GPU twice, which hides every GPU")
        found.append(number)
    return Visible(tuple(found))


def _number(name: str, uuids: Sequence[str]) -> int | str | None:
    """The GPU that an entry names; None where it names none, or several."""
    if name.isdecimal():
        return int(name) if int(name) < len(uuids) else None
    if name.startswith("MIG-"):
        return name
    alike = [number for number, uuid in enumerate(uuids) if name.startswith("GPU-") and uuid.startswith(name)]
    return alike[0] if len(alike) == 1 else None


def _unknown(name: str, listed: str, uuids: Sequence[str], before: int) -> str:
    if name == "-1":
        why = "-1 hides every GPU listed after it"
    else:
        there = f"0 to {len(uuids) - 1}: {', '.join(uuids)}" if uuids else "none"
        why = f"no GPU of this machine is {name!r}, there are {there}"
    return f"{VARIABLE}={listed!r}: {why}" + ("" if before else ", so that none is left; unset it or name one")
