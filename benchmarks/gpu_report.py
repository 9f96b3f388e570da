"""The report of `gpu`: every figure beside its bound, the prediction written in advance, and the fraction reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu_steps import PREDICTED

Found = Mapping[str, Any]
# Units of figures that mean the same at every size.
SCALED = ("GB/s", "x", "min", "s for 1,231 eras")


def markdown(facts: Mapping[str, str], found: Sequence[Found]) -> str:
    """The report for people."""
    lines = ["# gpu", "", *(f"- {fact}: {value}" for fact, value in facts.items() if value), ""]
    lines += ["| step | state | seconds | expected | why, or what it does |", "| --- | --- | ---: | ---: | --- |"]
    for step in found:
        seconds = f"{step['seconds']:.0f}" if "seconds" in step else ""
        expected = f"{step['expected']:.0f}" if "expected" in step else ""
        lines.append(f"| {step['step']} | {step['status']} | {seconds} | {expected} | {_cell(_about(step))} |")
    checks = [(step["step"], check) for step in found for check in step.get("checks", ())]
    if checks:
        lines += ["", "## What must hold", "", "| step | check | | how |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {step} | {check['name']} | {'holds' if check['holds'] else 'FAILS'} | {_cell(check['detail'])} |"
            for step, check in checks
        ]
    figures = [(step.get("sizes", "full"), figure) for step in found for figure in step.get("figures", ())]
    if figures:
        lines += ["", "## What was measured", ""]
        lines += ["| figure | value | bound | of the bound | goal | predicted | of the prediction | how |"]
        lines += ["| --- | ---: | ---: | ---: | --- | ---: | ---: | --- |"]
        lines += [_figure(figure, sizes) for sizes, figure in figures]
    used = [step for step in found if step.get("used")]
    if used:
        lines += ["", "## What the steps used", ""]
        lines += ["| step | CPU s | GPU busy, % | GPU memory, GB | power, W | energy, kJ | throttled by |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: | --- |"]
        lines += [_used(step) for step in used]
    return "\n".join(lines)


def _about(step: Found) -> str:
    reason, would = str(step.get("reason", "")), str(step["would"])
    if step["status"] == "done":
        return would
    return f"{reason}; it would {would}" if step["status"] in ("skipped", "not reached") else reason


def prediction(figure: Found, sizes: str) -> tuple[float, str] | None:
    """Prediction of a figure; predictions are for full sizes, and hold at others for what is scaled to them."""
    scaled = figure["unit"] in SCALED or figure["name"] == "example_model"
    return PREDICTED.get(figure["name"]) if scaled or sizes == "full" else None


def _figure(figure: Found, sizes: str) -> str:
    unit, value = figure["unit"], figure["value"]
    bound = "" if figure["bound"] is None else f"{number(figure['bound'])} {unit} ({figure['bound_of']})"
    share = "" if figure["fraction"] is None else f"{figure['fraction']:.1%}"
    goal = ""
    if figure["goal"] is not None:
        met = value >= figure["goal"] if figure["better"] == "higher" else value <= figure["goal"]
        word = "at least" if figure["better"] == "higher" else "at most"
        goal = f"{word} {number(figure['goal'])} {unit}: {'met' if met else 'MISSED'}"
    predicted, shown, ratio = prediction(figure, sizes), "", ""
    if predicted is not None:
        shown, ratio = f"{number(predicted[0])} {unit} ({predicted[1]})", f"{value / predicted[0]:.2f}"
    cells = (figure["name"], f"{number(value)} {unit}", bound, share, goal, shown, ratio, figure["detail"])
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _used(step: Found) -> str:
    used, gpu = step["used"], step["used"].get("gpu", {})
    memory = f"{gpu['memory_bytes'] / 1e9:.1f}" if "memory_bytes" in gpu else ""
    energy = f"{used['joules'] / 1000:.2f}" if "joules" in used else ""
    busy, power = (f"{gpu[name]:.0f}" if name in gpu else "" for name in ("utilisation", "power_watts"))
    throttled = ", ".join(f"{reason} {share:.0%}" for reason, share in gpu.get("throttled", {}).items())
    return f"| {step['step']} | {used.get('cpu', 0):.1f} | {busy} | {memory} | {power} | {energy} | {throttled} |"


def number(value: float) -> str:
    """Three figures."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _cell(text: str) -> str:
    return str(text).replace("|", "/").replace("\n", " ")
