"""The counts of docs/architecture.md are those of the sources (tests/house_counts.py)."""

import re

import pytest

from house_counts import EXAMPLES, ROOT, counts


def stated() -> dict[str, int]:
    """What docs/architecture.md says of today."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("## Counts")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| \d+ \| (\d+) \|$", section, flags=re.MULTILINE)
    return {what: int(count) for what, count in rows}


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    return counts()


def test_the_page_states_every_count(counted):
    assert stated().keys() == counted.keys()


def test_modules_at_the_root_and_imports_that_run_up_are_as_stated(counted):
    for what in ("modules at the root of the package", "imports that run up"):
        assert counted[what] == stated()[what], what


def test_imports_between_folders_are_about_as_stated(counted):
    what = "imports between folders"
    assert counted[what] == pytest.approx(stated()[what], rel=0.1)


def test_no_addition_touches_more_files_than_stated(counted):
    more = {what: counted[f"files that name {what}"] for what in EXAMPLES}
    assert not {
        what: count for what, count in more.items() if count > stated()[f"files that name {what}"]
    }
