"""Calls as they stand in our sources, and functions as they stand in a library's sources or stubs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Call:
    """A call in our sources.

    Attributes:
        name: what is called, as it is written.
        positional: number of arguments by position; None where there may be any number.
        named: arguments by name; `**` among them where there may be any.
        where: file and line.
    """

    name: str
    positional: int | None
    named: tuple[str, ...]
    where: str


def calls(path: Path) -> Iterator[Call]:
    """All calls of a file."""
    return calls_of(path.read_text(encoding="utf-8"), path.name)


def calls_of(text: str, name: str) -> Iterator[Call]:
    """All calls of a source."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            starred = any(isinstance(argument, ast.Starred) for argument in node.args)
            named = tuple(keyword.arg or "**" for keyword in node.keywords)
            yield Call(ast.unparse(node.func), None if starred else len(node.args), named, f"{name}:{node.lineno}")


@cache
def _module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def function(path: Path, dotted: str) -> list[ast.FunctionDef]:
    """The definitions of a function or a method, `Class` standing for its constructor; several where overloaded.

    Raises:
        LookupError: there is none.
    """
    body: list[ast.stmt] = _module(path).body
    *outer, last = dotted.split(".")
    for name in outer:
        body = next((node.body for node in body if isinstance(node, ast.ClassDef) and node.name == name), [])
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == last:
            found = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
            return found or [ast.parse("def __init__(self): ...").body[0]]  # type: ignore[list-item]
    found = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == last]
    if not found:
        raise LookupError(f"{path.name} has no {dotted}")
    return found


def refusal(call: Call, definition: ast.FunctionDef) -> str:
    """Why a call does not fit a definition; empty where it does. Names must be named: `**kwargs` takes none."""
    arguments = definition.args
    static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in definition.decorator_list)
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    if positional[:1] in (["self"], ["cls"]) and not static:
        positional = positional[1:]
    required = positional[: len(positional) - len(arguments.defaults)]
    only_named = [argument.arg for argument in arguments.kwonlyargs]
    needed = [name for name, default in zip(only_named, arguments.kw_defaults, strict=True) if default is None]
    unknown = [name for name in call.named if name not in (*positional, *only_named, "**")]
    if unknown:
        return f"{call.where}: {call.name} has no parameter {', '.join(unknown)}"
    given = call.positional
    if given is not None and given > len(positional) and arguments.vararg is None:
        return f"{call.where}: {call.name} takes {len(positional)} arguments by position, given {given}"
    if given is None or "**" in call.named:
        return ""
    missing = [name for name in (*required[given:], *needed) if name not in call.named]
    return f"{call.where}: {call.name} misses {', '.join(missing)}" if missing else ""


def imports_for(definition: ast.FunctionDef, name: str) -> list[str]:
    """Modules that a function imports, on condition of a parameter, and cannot do without: it raises where they are not
    there."""
    found = []
    for node in ast.walk(definition):
        if not isinstance(node, ast.If) or name not in {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}:
            continue
        for inner in ast.walk(ast.Module(node.body, [])):
            if isinstance(inner, ast.Import):
                found += [alias.name for alias in inner.names]
    return found
