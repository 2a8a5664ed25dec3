"""report.md: text from a run folder stays text, without a backslash before every sign."""

import pytest
from markdown_it import MarkdownIt

from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.gallery import Gallery
from lora_lab.study.report.headline import headline
from lora_lab.study.report.markdown import inline_text, markdown, plain_text
from lora_lab.study.report.spelling import percent
from lora_lab.study.report.table import make_table
from study_sweep_builder import SweepBuilder

RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = (
    "# a heading", "- a list", "+ a list", "1. a list", "12) a list", "> a quote", "=== under",
    "*bold*", "**bold**", "_em_", "__em__", "a_b_ c", "`code`", "[link](http://x.example)",
    "![i](x)",     "<b>tag</b>", "<script>alert(1)</script>", "a | b", "~~gone~~", "back\\*slash",
    "&amp;", "*** --- ***",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_a_text_is_markup(text):
    tokens = RENDERER.parse(plain_text(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    shown = "".join(child.content for child in children)
    assert shown == " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_never_ends_its_cell_and_is_no_markup_in_it(text):
    table = f"| a | b |\n|---|---|\n| {inline_text(text)} | y |"
    tokens = RENDERER.parse(table)
    assert len([token for token in tokens if token.type == "td_open"]) == 2
    content = next(t for t in tokens[tokens.index(next_cell(tokens)) :] if t.type == "inline")
    assert "".join(child.content for child in content.children or []) == " ".join(text.split())


def next_cell(tokens):
    return next(token for token in tokens if token.type == "td_open")


@pytest.mark.parametrize("text", ["+2.3 %", "−0.4 %", "= as good", "- none", "> 5", "12. s", "# 3"])
def test_a_figure_in_a_cell_or_a_heading_has_no_backslash(text):
    assert "\\" not in inline_text(text)
    tokens = RENDERER.parse(f"# {inline_text(text)}")
    assert [token.type for token in tokens] == ["heading_open", "inline", "heading_close"]


@pytest.mark.parametrize(
    "text", ["dim 8 shows no difference from 16 above 1.2 %.", "network.dim: −0.9 % (p < 0.05)!",
             "held_out_loss and non-cropped, 3-fold", "0.1076"],
)  # fmt: skip
def test_plain_prose_has_no_backslash(text):
    assert "\\" not in plain_text(text)


def test_the_bases_row_names_its_seed_once(tmp_path):
    sweep = SweepBuilder(tmp_path).base(2).values("8", 2)
    for run in sweep.runs[:2]:
        run.name = f"base/seed={run.seed}"
    _, rows = make_table(judge(load_sweep(sweep.write())))
    assert (rows[0].label, rows[0].tag) == ("16 (base/seed=1234)", "")
    sweep.runs[0].name = "base"
    _, rows = make_table(judge(load_sweep(sweep.write())))
    assert (rows[0].label, rows[0].tag) == ("16 (base)", "seed 1234")


def test_cells_of_the_short_form_have_the_intervals_of_the_page(tmp_path):
    sweep = SweepBuilder(tmp_path, seed_spread=0.004, image_noise=0.0002)
    study = judge(load_sweep(sweep.base(3).values("2", 3, effect=0.003).write()))
    result = study.values[0].first_result
    assert result is not None
    ends = f"{percent(result.relative)} ({percent(result.share(result.low))} to "
    table = markdown(study, headline(study), Gallery([], [], None))
    assert inline_text(f"✕ {ends}{percent(result.share(result.high))})") in table
    assert "(mean)" not in table


def test_an_address_is_no_link():
    assert plain_text("see http://x.example and www.x.example") == (
        "see http\\://x.example and www\\.x.example"
    )
