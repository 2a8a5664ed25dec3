"""A family of base models is one file; what still names a part of Stable Diffusion is listed."""

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "lora_lab"
FAMILY_FILE = "checkpoint/families/sd15.py"
ELSEWHERE = ("pocket/", "checkpoint/families/", "metrics/encoders.py")
"""Where the embedded model is made, the family's own folder, and the CLIP of the metrics."""
PART_OF_SD15 = re.compile(
    r"\bSD15\b|\bsd15\b|lora_te|lora_unet|text_model|stable-diffusion-v1|Stable Diffusion 1"
    r"|\bCLIPText\w+|\bUNet2DConditionModel\b|\bAutoencoderKL\b|\bCLIPTokenizer\b"
)


def code_of(path: Path) -> str:
    """A file's code without comments, docstrings and imports."""
    text = path.read_text(encoding="utf-8")
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Expr | ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(
        token.string
        for token in tokens
        if token.type != tokenize.COMMENT and token.start[0] not in left_out
    )


def naming() -> set[str]:
    """Modules outside of the family's file whose code names a part of Stable Diffusion 1.x."""
    return {
        name
        for path in SOURCE.rglob("*.py")
        if not (name := path.relative_to(SOURCE).as_posix()).startswith(ELSEWHERE)
        and PART_OF_SD15.search(code_of(path))
    }


def listed() -> set[str]:
    """The modules that docs/architecture.md lists for whoever adds a family."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("## Adding a family of base models")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([\w/]+\.py)`", section, flags=re.MULTILINE))


def test_every_place_that_names_a_part_of_sd15_is_listed():
    assert naming() == listed()


def test_a_part_of_sd15_in_code_is_seen_and_one_in_a_comment_is_not(tmp_path):
    stray = tmp_path / "stray.py"
    stray.write_text('"""On CLIPTextModel."""\nkey = 1  # lora_te_\n', encoding="utf-8")
    assert not PART_OF_SD15.search(code_of(stray))
    stray.write_text('key = "lora_te_text_model_encoder"\n', encoding="utf-8")
    assert PART_OF_SD15.search(code_of(stray))
