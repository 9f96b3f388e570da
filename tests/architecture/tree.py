"""The tree in the README, a line per module, drawn from the first line of each file; `make readme` writes it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- tree -->\n", "<!-- /tree -->\n"
SOURCES = ("engine/eravane", "kernels/eravane_kernels", "benchmarks")
SUFFIXES = (".py", ".cu", ".cuh")


def first_line(path: Path) -> str:
    """The first sentence of a module's docstring, or of a CUDA file's head comment."""
    head = path.read_text(encoding="utf-8").split("\n\n")[0]
    if path.suffix == ".py":
        head = head.removeprefix('"""').split('"""')[0]
    words = " ".join(line.removeprefix("// ").strip() for line in head.splitlines())
    return re.split(r"(?<=\.)\s", words)[0].rstrip(".")


def tree() -> str:
    """The tree as Markdown: a heading per folder, a line per file that git knows."""
    listed = subprocess.run(["git", "ls-files", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=True)
    folders: dict[str, list[Path]] = {}
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in SUFFIXES and path.exists():
            folders.setdefault(str(path.parent.relative_to(ROOT)), []).append(path)
    lines: list[str] = []
    for folder, paths in folders.items():
        package = next((path for path in paths if path.name == "__init__.py"), None)
        lines.append(f"\n**`{folder}/`** {first_line(package) if package else ''}".rstrip() + "\n")
        lines += [f"- `{path.name}` {first_line(path)}" for path in paths if path is not package]
    return "\n".join(lines).strip() + "\n"


def rewritten() -> str:
    """The README with the tree as it should be."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tree()}{END}{after}"


if __name__ == "__main__":
    README.write_text(rewritten(), encoding="utf-8")
