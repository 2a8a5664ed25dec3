"""train.py can be read from top to bottom, and nothing on the way to `trainer.fit` passes it on."""

import ast
from pathlib import Path

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
ORDER = (
    *("RunFolder.open", "folder.locked", "Inputs.load", "LoRADataModule", "inject_lora"),
    *("LoRAModule", "folder.begin", "running_loggers", "build_callbacks", "build_trainer"),
    *("trainer.fit", "folder.complete"),
)


def functions() -> dict[str, ast.FunctionDef]:
    tree = ast.parse(TRAIN.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def calls(node: ast.AST) -> list[str]:
    """Names of what is called, in the order of the text."""
    found = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    found.sort(key=lambda call: (call.lineno, call.col_offset))
    return [ast.unparse(call.func) for call in found]


def calls_until_fit(start: str) -> int:
    """How many functions are entered between one of train.py's and ``trainer.fit``.

    `trainer.fit` itself is Lightning's, so a function that names it is one call away.
    """
    names = calls(functions()[start])
    if "trainer.fit" in names:
        return 1
    return 1 + min(calls_until_fit(name) for name in names if name in functions())


def test_the_story_is_told_in_its_order():
    told = [name for name in calls(functions()["train"]) if name in ORDER]
    assert tuple(told) == ORDER


def test_two_calls_lie_between_the_command_and_fit():
    assert calls_until_fit("train") == 1
    assert calls_until_fit("main") == 2


def test_the_story_fits_on_a_page():
    lines = TRAIN.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110


def test_the_command_that_draws_fits_on_a_page_too():
    lines = TRAIN.with_name("sample.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110
