"""Rules of CONTRIBUTING.md that a machine can hold: one subject a module, names, prints, paths."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_EMBEDDED_BYTES = 64 * 2**20
WEIGHTS_FOLDER = "src/lora_lab/pocket/models/"
VAGUE_NAMES = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py"}
PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"}
WEIGHTS = PICKLES | {".safetensors", ".npz", ".npy", ".onnx"}
# A home or work folder of one machine; /home/someone is what tests call nobody's home.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work|opt|mnt|srv)/(?!someone\b)[\w.-]+")


@cache
def tracked() -> tuple[Path, ...]:
    """Files under version control that exist; every file on disk where git can't tell."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout: there is no list of the project's files")
    return tuple(path for name in listing.stdout.split("\0") if (path := ROOT / name).is_file())


def python_files() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


def text_of(path: Path) -> str | None:
    """The file's text; None for a binary file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_commands_are_thin():
    for command in ("train.py", "sample.py"):
        assert len((ROOT / command).read_text(encoding="utf-8").splitlines()) <= 100, command


def modules() -> dict[str, ast.Module]:
    """Every module of the package; the links to train.py and sample.py are theirs."""
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for path in python_files()
        if (name := name_of(path)).startswith("src/") and not path.is_symlink()
    }


def test_no_class_has_the_name_of_another():
    """In tests and benchmarks too: who searches for a name finds one thing."""
    found: dict[str, list[str]] = {}
    for path in python_files():
        tree = ast.parse("" if path.is_symlink() else path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(name_of(path))
    assert not {name: places for name, places in found.items() if len(places) > 1}


SAME_SUBJECT = {
    *("__init__.py", "__main__.py"),
    "build.py",  # builds what its folder is about
    *("cost.py", "dlr.py", "trainer.py"),  # a figure or setting, and what it shows or sets
}


def test_no_file_name_means_two_things():
    found: dict[str, list[str]] = {}
    for name in modules():
        found.setdefault(Path(name).name, []).append(name)
    twice = {name for name, places in found.items() if len(places) > 1}
    assert not twice - SAME_SUBJECT


THIRD_PERSON = re.compile(
    r"(?:Returns|Reads|Draws|Writes|Takes|Refuses|Loads|Makes|Tells|Checks|Judges|Finds|Says|"
    r"Measures|Builds|Gives|Trains|Composes|Adds|Sorts|Embeds|Keeps|Shows) "
)
SMALL_ENTRY = re.compile(
    r" {4}\*{0,2}\w+(?:, \w+)*: (?:the|a|an|what|whether|where|of|from|how|which|its) "
)


def test_docstrings_are_in_one_dialect():
    """What a function gives as a noun, what it does in the imperative; entries with a capital."""
    wrong = []
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or "/pocket/" in name:
                continue
            lines = (ast.get_docstring(node) or "").splitlines()
            if isinstance(node, ast.FunctionDef) and lines and THIRD_PERSON.match(lines[0]):
                wrong.append(f"{name}:{node.lineno} {lines[0]}")
            places = [i for i, line in enumerate(lines) if line in ("Args:", "Raises:")]
            for line in lines[places[0] :] if places else ():
                if SMALL_ENTRY.match(line):
                    wrong.append(f"{name}:{node.lineno} {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_a_private_name_stays_in_its_module():
    """A module that needs another's private parts is one subject in two files."""
    borrowed = [
        f"{name} imports {alias.name}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lora_lab")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert not borrowed


def test_only_a_folders_init_hands_on_names():
    """A module that re-exports what another defines was cut in two, or has two subjects."""
    handing_on = [
        name
        for name, tree in modules().items()
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
        if Path(name).name != "__init__.py"
    ]
    assert not handing_on


def test_no_file_has_a_name_that_says_nothing():
    assert not [name_of(path) for path in tracked() if path.name in VAGUE_NAMES]


def test_only_commands_print():
    allowed = (
        *("src/lora_lab/cli/", "src/lora_lab/pocket/"),
        *("src/lora_lab/study/__main__.py", "src/lora_lab/kohya/__main__.py"),
    )
    printing = [
        f"{name}:{node.lineno}"
        for path in python_files()
        if (name := name_of(path)).startswith("src/") and not name.startswith(allowed)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not printing, f"use logging: {printing}"


def test_no_tracked_file_names_a_folder_of_one_machine():
    found = [
        f"{name_of(path)}: {match.group()}"
        for path in tracked()
        if (text := text_of(path)) is not None
        for match in MACHINE_PATH.finditer(text)
    ]
    assert not found, found


def test_weights_lie_only_in_the_embedded_models():
    strays = [
        name
        for path in tracked()
        if path.suffix in WEIGHTS and not (name := name_of(path)).startswith(WEIGHTS_FOLDER)
    ]
    assert not strays


def test_no_pickle_is_tracked():
    assert not [name_of(path) for path in tracked() if path.suffix in PICKLES]


def test_embedded_models_stay_small():
    size = sum(p.stat().st_size for p in tracked() if name_of(p).startswith(WEIGHTS_FOLDER))
    assert size <= MAX_EMBEDDED_BYTES


def imported_libraries() -> set[str]:
    """Top-level names that the package imports and that neither Python nor we bring."""
    names: set[str] = set()
    for path in python_files():
        if name_of(path).startswith("src/"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names.update(alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                    names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"lora_lab", "hydra_plugins"}


def test_every_imported_library_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    declared = {plain(re.split(r"[^\w.-]", line)[0]) for line in lines}
    providers = packages_distributions()
    missing = {
        name
        for name in imported_libraries()
        if not declared & {plain(provider) for provider in providers.get(name, [name])}
    }
    assert not missing


def plain(distribution: str) -> str:
    """A distribution's name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_constraints_pin_exact_versions_and_no_sources():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    loose = [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert lines and not loose, loose
