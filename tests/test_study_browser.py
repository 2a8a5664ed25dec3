"""The report in a real browser: quiet, alone, readable at every width, usable by keyboard."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_lab.config.metrics import METRICS
from lora_lab.run_folder.scores_file import SCORES_FILE, write_scores
from lora_lab.study.report.build import build_report
from study_sweep_builder import SweepBuilder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WIDTHS = (360, 390, 1024, 1440)
ENTER, ESCAPE, TAB, LEFT, RIGHT, DOWN, HOME = (
    *("\ue007", "\ue00c", "\ue004", "\ue012", "\ue014", "\ue015", "\ue011"),
)

if CHROMIUM is None or CHROMEDRIVER is None:
    pytest.skip(
        "chromium and chromedriver are not installed (apt-get install chromium chromium-driver)",
        allow_module_level=True,
    )
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
select = pytest.importorskip("selenium.webdriver.support.select")
waiting = pytest.importorskip("selenium.webdriver.support.wait")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    hostile = "<img src=http://example.invalid/x.png onerror=alert(1)>"
    sweep = SweepBuilder(tmp_path_factory.mktemp("sweep"), epochs=6)
    sweep.base(2).value("2", effect=0.03).value("8").value("32", effect=-0.03)
    sweep.value("0", status="failed", error=hostile)
    folder = sweep.write()
    sweep.grid(kind="simple")
    sweep.images(("pocket-graphic", "pocket-photo"))
    score(folder)
    (folder / "network.dim=8/images/pocket-graphic/simple/00000048.png").unlink()
    return build_report(folder).page


def score(folder: Path) -> None:
    """Figures in every metric of every run, so that the table is as wide as it gets."""
    for place, run in enumerate(path.parent for path in folder.glob("*/run.json")):
        units = {(f"prompt {i}", "1"): 0.5 + 0.01 * i + 0.001 * place for i in range(8)}
        write_scores(run / SCORES_FILE, {}, {metric.name: units for metric in METRICS[1:]})


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A report of two hundred values."""
    sweep = SweepBuilder(tmp_path_factory.mktemp("many"), "optimizer.lr", "1.0", epochs=3).base(2)
    for index in range(200):
        sweep.value(f"{(index + 1) / 1000:g}", effect=0.0001 * (index % 7))
    folder = sweep.write()
    sweep.images(saves=2)
    return build_report(folder).page


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    browser.get_log("browser")
    browser.get_log("performance")
    open_page(browser, page)
    return browser


def open_page(browser: Any, page: Path) -> None:
    """Open ``page`` and wait for its scripts: on a busy machine the driver returns before them."""
    browser.get(page.as_uri())
    state = "return document.readyState"
    waiting.WebDriverWait(browser, 60).until(lambda _: browser.execute_script(state) == "complete")


def resize(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_the_page_opens_without_an_error_or_a_request(opened, page):
    opened.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith("data:")} <= {page.as_uri()}


def test_names_of_values_and_checkpoints_are_text(browser, tmp_path):
    """The names hold markup that would change the title of the page; its policy would log that."""
    image = "<img src=x onerror=document.title='ran'>"
    script = "</script><script>document.title='ran'</script>"
    formula = "=cmd|'/C calc'!A0"
    sweep = SweepBuilder(tmp_path / "sweep", parameter="model.checkpoint", epochs=6)
    sweep.base(2).value(image, effect=0.03, name="a").value(script, name="b")
    sweep.value(formula, name="c", status="failed", error=script)
    folder = sweep.write()
    sweep.grid(checkpoint=image)
    sweep.images((image, "$(touch ran)"))
    hostile = build_report(folder).page
    browser.get_log("browser")
    open_page(browser, hostile)
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    assert browser.get_log("browser") == [] and browser.title != "ran"
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    text = browser.execute_script("return document.body.textContent")
    for name in (image, script, formula, "$(touch ran)"):
        assert name in text
    assert [path for path in tmp_path.rglob("ran")] == []


def test_every_picture_is_shown(opened):
    broken = opened.execute_script(
        "return Promise.all([...document.querySelectorAll('main img')].map("
        "i => i.decode().then(() => '', () => i.alt))).then(all => all.filter(Boolean))"
    )
    assert broken == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(opened, width):
    resize(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def corner_of_the_loss(browser):
    """Width of the picture that is shown now, and the brightness of its first pixel."""
    return browser.execute_script(
        "const image = document.querySelector('#loss img');"
        "return image.decode().then(() => {"
        "  const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;"
        "  const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);"
        "  return [image.naturalWidth, context.getImageData(0, 0, 1, 1).data[0]]; },"
        "  () => [0, 0])"
    )


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_figures_suit_the_screen_and_the_colour_scheme(opened, width, scheme):
    resize(opened, width)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def suits(browser):
        pixels, brightness = corner_of_the_loss(browser)
        return pixels and ((pixels < 1000, brightness < 128) == (width < 640, scheme == "dark"))

    # The browser exchanges a picture some time after the screen has changed.
    waiting.WebDriverWait(opened, 20).until(suits)


def test_a_figure_opens_in_full_size_and_escape_closes_it(opened):
    resize(opened, 1280)
    opened.execute_script("document.querySelector('.chart a.zoom').focus()")
    opened.switch_to.active_element.send_keys(ENTER)
    viewer = opened.find_element("id", "viewer")
    assert viewer.get_property("open")
    shown = opened.execute_script("return document.querySelector('#viewer img').naturalWidth")
    assert shown == 1400
    opened.switch_to.active_element.send_keys(ESCAPE)
    assert not viewer.get_property("open")


def sources(browser):
    """What each cell of the images shows: an address, or a text where there is no image."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.images tbody tr')].map(row =>"
        " [...row.cells].slice(1).map(cell => cell.querySelector('img')?.src ?? cell.innerText))"
    )


def columns(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('.images thead th')].slice(1)"
        ".map(h => h.firstChild.textContent)"
    )


def part(browser, name):
    return browser.find_element("css selector", f"#explorer [data-part='{name}']")


def status(browser):
    return part(browser, "status").text


def test_the_slider_shows_another_checkpoint_of_the_training(opened):
    resize(opened, 1280)
    assert columns(opened) == ["Simple", "Complex", "Random 1", "Random 2"]
    last = sources(opened)
    part(opened, "slider").send_keys(LEFT)
    assert columns(opened) == ["Simple", "Complex"]
    assert "75 %" in status(opened) and "2 more only at other steps" in status(opened)
    before = sources(opened)
    assert all(a[0] != b[0] for a, b in zip(last, before, strict=True) if "data:" in a[0])
    assert part(opened, "slider").get_attribute("aria-valuetext") == "75 % of the training"


def test_prompts_can_be_filtered_by_name_and_by_words(opened):
    resize(opened, 1280)
    part(opened, "words").send_keys("complex")
    assert columns(opened) == ["Complex"]
    part(opened, "words").send_keys("\ue003" * 7, "no such word")
    assert columns(opened) == [] and "no prompt fits the filter" in status(opened)
    part(opened, "words").clear()
    select.Select(part(opened, "prompt")).select_by_index(3)
    assert columns(opened) == ["Random 1"]


def test_a_missing_image_is_said_in_its_cell(opened):
    resize(opened, 1280)
    waiting.WebDriverWait(opened, 20).until(lambda browser: len(sources(browser)) > 5)
    rows = sources(opened)
    assert rows[3][0] == "image missing" and rows[5] == ["run failed"] * 4


def test_any_two_cells_stand_side_by_side_by_keyboard_alone(opened):
    """Tab to the images, arrows to a cell, Enter; the base's stands on the left."""
    resize(opened, 1280)
    opened.execute_script("document.querySelector('#explorer .scroll').focus()")
    opened.switch_to.active_element.send_keys(TAB)
    for key in (RIGHT, DOWN, DOWN):
        opened.switch_to.active_element.send_keys(key)
    shown = sources(opened)
    opened.switch_to.active_element.send_keys(ENTER)
    assert opened.find_element("id", "compare").get_property("open")
    assert pair(opened) == [shown[0][1], shown[2][1]]
    for _ in range(3):
        opened.switch_to.active_element.send_keys(TAB)
    right = opened.find_element("css selector", "[data-side='right'] [data-part='row']")
    select.Select(right).select_by_index(4)
    assert pair(opened) == [shown[0][1], shown[4][1]]
    told = opened.find_element("css selector", "#compare [data-part='told']")
    assert "Right: 32, better; Complex; 100 %" in told.get_attribute("textContent")
    opened.switch_to.active_element.send_keys(ESCAPE)
    assert not opened.find_element("id", "compare").get_property("open")
    assert opened.switch_to.active_element.get_attribute("aria-label").startswith("Compare")


def pair(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('#compare [data-side] img')].map(i => i.src)"
    )


def test_the_wipe_uncovers_the_left_image(opened):
    resize(opened, 1280)
    opened.execute_script("document.querySelector('.images button').click()")
    wipe = opened.find_element("css selector", "#compare [data-part='wipe']")
    wipe.send_keys(HOME)
    clip = "return getComputedStyle(document.querySelector('#compare .upper')).clipPath"
    assert "0%" in opened.execute_script(clip) or opened.execute_script(clip) == "inset(0px)"
    opened.switch_to.active_element.send_keys(ESCAPE)


def test_every_control_has_a_name(opened):
    nameless = opened.execute_script(
        "return [...document.querySelectorAll('button, input, select, a, dialog, [role=region]')]"
        ".filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')"
        " || e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert nameless == []


def test_two_hundred_values_are_shown_in_parts_and_found_by_search(browser, many):
    open_page(browser, many)
    resize(browser, 1024)
    rows = "return [...document.querySelectorAll('#values > .scroll tbody tr')]"
    visible = f"{rows}.filter(r => r.offsetParent).length"
    assert browser.execute_script(visible) == 30
    browser.find_element("css selector", "#values > .filters input").send_keys("0.123")
    assert browser.execute_script(visible) == 1
    assert len(sources(browser)) == 24
    part(browser, "more").send_keys(ENTER)
    assert len(sources(browser)) == 48
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1024
    assert browser.get_log("browser") == []


def test_the_table_sorts_by_any_column_from_the_keyboard(opened):
    resize(opened, 1280)
    opened.execute_script("document.querySelectorAll('.values thead button')[2].focus()")
    opened.switch_to.active_element.send_keys(ENTER)
    order = opened.execute_script(
        "return [...document.querySelectorAll('.values tbody th')].map(h => h.innerText)"
    )
    assert order[0] == "32"
    header = opened.execute_script(
        "return document.querySelectorAll('.values thead th')[2].getAttribute('aria-sort')"
    )
    assert header == "ascending"


def test_the_first_tab_stop_skips_to_the_comparison(opened):
    opened.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    opened.find_element("tag name", "body").send_keys(TAB)
    assert opened.switch_to.active_element.get_attribute("href").endswith("#main")
