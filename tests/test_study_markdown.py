"""report.md: text from a run folder stays text, without a backslash before every sign."""

import pytest
from markdown_it import MarkdownIt

from lora_lab.study.report.markdown import inline_text, plain_text

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


def test_an_address_is_no_link():
    assert plain_text("see http://x.example and www.x.example") == (
        "see http\\://x.example and www\\.x.example"
    )
