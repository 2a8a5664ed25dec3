"""Counts of the house in docs/architecture.md: `python tests/house_counts.py [another checkout]`.

A module at the root lies in no folder of the package. Folders are those below the package, and in
study/ those below it. An import runs up where the folder that is imported imports back.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {
    "an optimizer": r"\badafactor\b",
    "a loss": r"\bsmooth_l1\b",
    "a sampler": r"\bunipc\b",
    "a metric": r"\bvendi\b",
    "a metric with an encoder of its own": r"\bdino\b",
    "an axis of a grid": r"[\"']guidance[\"']|axes\.guidance|^  guidance: \[",
}
"""What is added -> what names one that is there; each file that names it would be touched."""


def modules(root: Path) -> dict[str, ast.Module]:
    """Path below the package, of every module -> its syntax tree; without links."""
    package = root / "src" / "lora_lab"
    return {
        path.relative_to(package).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(package.rglob("*.py"))
        if not path.is_symlink()
    }


def folder(parts: tuple[str, ...]) -> str:
    """The folder of a module whose names below the package these are; the root is empty."""
    inside = parts[:-1]
    return "/".join(inside[: 2 if inside[:1] == ("study",) else 1])


def arrows(root: Path) -> dict[tuple[str, str], int]:
    """(folder, another that it imports from) -> how many import statements that is."""
    trees = modules(root)
    found: dict[tuple[str, str], int] = {}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            target = tuple(node.module.split(".")[1:])
            if node.level or not node.module.startswith("lora_lab.") or not target:
                continue
            if "/".join(target) + ".py" not in trees:
                target = (*target, "__init__")
            pair = folder(tuple(name.split("/"))), folder(target)
            if pair[0] != pair[1]:
                found[pair] = found.get(pair, 0) + 1
    return found


def touched(root: Path, pattern: str) -> int:
    """How many files of src/ and conf/ name something."""
    names = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    files = [*(root / "src").rglob("*.py"), *(root / "conf").rglob("*.yaml")]
    return sum(
        bool(names.search(path.read_text(encoding="utf-8")))
        for path in files
        if not path.is_symlink()
    )


def counts(root: Path = ROOT) -> dict[str, int]:
    """The name of each count -> the count."""
    trees, between = modules(root), arrows(root)
    return {
        "modules at the root of the package": sum(
            "/" not in name and not name.startswith("__") for name in trees
        ),
        "imports between folders": sum(between.values()),
        "imports that run up": sum(
            between[pair] for pair in between if between.get(pair[::-1], 0) >= between[pair]
        ),
        **{f"files that name {what}": touched(root, names) for what, names in EXAMPLES.items()},
    }


if __name__ == "__main__":
    for what, count in counts(Path(sys.argv[1]) if sys.argv[1:] else ROOT).items():
        print(f"| {what} | {count} |")
