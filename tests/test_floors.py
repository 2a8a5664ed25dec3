"""Who may import whom (docs/architecture.md), held by reading the sources."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
PACKAGE = "lora_lab"

# Folder or module below the package -> floor. A module imports from its own floor or lower ones.
FLOORS = {
    0: "errors files clock randomness config images",
    1: "prompts objective optimizers statistics kohya",
    2: "checkpoint lora_file run_folder",
    3: "text network data loggers",
    4: "sampling",
    5: "training sampling.grids metrics study data_report",
    6: "cli pocket",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}
APART = FLOORS[5].split()
"""None of these knows another: each reads what the others leave in folders."""
COMMANDS = {
    *("lora_lab.train", "lora_lab.sample", "lora_lab.kohya.__main__"),
    *("lora_lab.study.__main__", "lora_lab.study.check", "lora_lab.study.simulate"),
}
"""Commands stand above all floors, wherever their file lies."""
STUDY_FLOORS = ("read", "judge", "figures", "report", "kohya_logs")
"""Folders of study/, lowest first."""


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module in the package."""
    found = {}
    for path in sorted((SOURCE / PACKAGE).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """The folder that a module stands in, as FLOORS names it; the module itself at the root."""
    parts = module.split(".")[1:]
    nested = ".".join(parts[:2])
    return nested if nested in FLOOR_OF else parts[0]


def floor(module: str) -> int:
    """The floor of a module; KeyError for one that nobody gave a floor."""
    return max(FLOORS) if module in COMMANDS else FLOOR_OF[room(module)]


@cache
def imports(path: Path, module: str) -> frozenset[str]:
    """Every dotted name that a file imports, inside functions too, relative ones resolved."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names.update(f"{origin}.{alias.name}" for alias in node.names)
    return frozenset(names)


def own(name: str) -> str | None:
    """The module of ours that an imported name belongs to (`a.b.Class` -> `a.b`), if any."""
    known = modules()
    while name:
        if name in known and name != PACKAGE:
            return name
        name = name.rpartition(".")[0]
    return None


def graph() -> dict[str, set[str]]:
    """Module of ours -> the modules of ours that it imports."""
    return {
        module: {target for name in imports(path, module) if (target := own(name))} - {module}
        for module, path in modules().items()
        if module != PACKAGE
    }


def importers(library: str) -> set[str]:
    """Modules of ours that import a library, anywhere in the file."""
    return {
        module
        for module, path in modules().items()
        if any(name.split(".")[0] == library for name in imports(path, module))
    }


def test_every_module_has_a_floor():
    unknown = [m for m in graph() if m not in COMMANDS and room(m) not in FLOOR_OF]
    assert not unknown, f"give these a floor in tests/test_floors.py: {unknown}"


def test_imports_go_only_down():
    upward = [
        f"{module} (floor {floor(module)}) imports {target} (floor {floor(target)})"
        for module, targets in graph().items()
        for target in targets
        if floor(target) > floor(module)
    ]
    assert not upward, "\n".join(upward)


def test_training_sampling_for_grids_scoring_and_studies_do_not_know_each_other():
    met = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in targets
        if module not in COMMANDS and room(module) in APART
        if room(target) in APART and room(target) != room(module)
    ]
    assert not met, "\n".join(met)


def arrows() -> dict[tuple[str, str], int]:
    """(folder, another folder that it imports from) -> how many of its modules' imports that is."""
    found: dict[tuple[str, str], int] = {}
    for module, targets in graph().items():
        for target in targets:
            pair = folder(module), folder(target)
            if module not in COMMANDS and pair[0] != pair[1]:
                found[pair] = found.get(pair, 0) + 1
    return found


def folder(module: str) -> str:
    """The folder of a module; in study/ the folder below it."""
    parts = module.split(".")[1:]
    if parts[0] == "study" and len(parts) > 1:
        return f"study.{parts[1]}"
    return room(module)


def test_no_two_folders_import_from_each_other():
    back = [pair for pair in arrows() if pair[::-1] in arrows() and pair[0] < pair[1]]
    assert not back


def test_in_study_reading_comes_before_judging_drawing_and_reporting():
    order = {f"study.{name}": place for place, name in enumerate(STUDY_FLOORS)}
    upward = [
        pair
        for pair in arrows()
        if pair[0] in order and pair[1] in order and order[pair[1]] > order[pair[0]]
    ]
    assert not upward


def test_nothing_below_the_commands_imports_them():
    users = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in targets
        if room(target) == "cli" and room(module) not in ("cli", "pocket")
        if module not in COMMANDS
    ]
    assert not users


def test_imports_have_no_circles():
    edges, done = graph(), set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for target in edges[module]:
                visit(target, (*trail, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def test_nothing_imports_the_pocket_package():
    users = [
        module
        for module, targets in graph().items()
        if not module.startswith("lora_lab.pocket")
        and any(target.startswith("lora_lab.pocket") for target in targets)
    ]
    assert not users


@pytest.mark.parametrize("library", ["hydra", "omegaconf"])
def test_hydra_appears_only_in_config_and_commands(library):
    allowed = ("lora_lab.config", "lora_lab.cli", "lora_lab.pocket")
    strays = {m for m in importers(library) if not m.startswith(allowed)} - COMMANDS
    assert not strays


@pytest.mark.parametrize("library", ["lightning", "pytorch_lightning"])
def test_lightning_appears_only_on_the_upper_floors(library):
    assert not {m for m in importers(library) if floor(m) < 3}


def test_wandb_appears_in_at_most_one_file():
    assert len(importers("wandb")) <= 1


def test_the_floor_check_sees_an_upward_import(tmp_path):
    stray = tmp_path / "captions.py"
    stray.write_text("def f():\n    from .training import train\n    import lightning.pytorch\n")
    found = imports(stray, "lora_lab.captions")
    assert found == {"lora_lab.training.train", "lightning.pytorch"}
