"""The blind page in a real browser: keys, taps, going back, and the file that it saves."""

import json
from pathlib import Path

import pytest

from blind_sweep import blind_sweep
from lora_lab.study.read.blind import FORMAT, read_answers
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.blind_page import ANSWERS, pairs_of, write_blind_page
from test_study_browser import (  # noqa: F401
    DOWN,
    LEFT,
    RIGHT,
    browser,
    open_page,
    resize,
    waiting,
)

UP = "\ue013"


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory) -> Path:
    folder = blind_sweep(tmp_path_factory.mktemp("blind") / "sweep")
    (folder / "report").mkdir()
    write_blind_page(load_sweep(folder), folder / "report")
    return folder


@pytest.fixture
def opened(browser, sweep_dir, tmp_path):  # noqa: F811
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    resize(browser, 1280)
    page = sweep_dir / "report" / "blind.html"
    open_page(browser, page)
    browser.execute_script("localStorage.clear()")
    open_page(browser, page)
    browser.get_log("browser")
    return browser


def press(browser, *keys: str) -> None:  # noqa: F811
    body = browser.find_element("css selector", "body")
    for key in keys:
        body.send_keys(key)


def status(browser) -> str:  # noqa: F811
    return browser.find_element("id", "status").text


def test_keys_answer_and_go_back(opened):
    assert status(opened) == "Pair 1 of 36."
    press(opened, LEFT, DOWN, RIGHT)
    assert status(opened) == "Pair 4 of 36."
    press(opened, UP)
    assert status(opened) == "Pair 3 of 36."
    assert opened.get_log("browser") == []


def test_answers_are_saved_as_a_file_that_the_study_reads(opened, sweep_dir, tmp_path):
    pairs = pairs_of(load_sweep(sweep_dir))
    for pair in pairs:
        press(opened, LEFT if pair.left.run.value == "8" else RIGHT)
    assert status(opened) == "All 36 pairs answered."
    press(opened, "s")
    path = tmp_path / ANSWERS
    waiting.WebDriverWait(opened, 10).until(lambda _: path.is_file())
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["format"] == FORMAT
    assert [a["left"] for a in saved["answers"]] == [pair.left.key for pair in pairs]
    blind = read_answers(path, load_sweep(sweep_dir))
    assert len(blind.answers) == 36


def test_what_was_answered_is_there_after_the_page_was_closed(opened):
    press(opened, LEFT, LEFT)
    opened.refresh()
    assert status(opened) == "Pair 3 of 36."


@pytest.mark.parametrize("width", [360, 390, 1024])
def test_it_fits_a_phone_and_is_answered_by_taps(opened, width):
    resize(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    opened.find_element("css selector", ".bar [data-choice='tie']").click()
    assert status(opened) == "Pair 2 of 36."
