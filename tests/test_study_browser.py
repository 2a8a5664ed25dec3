"""The report in a real browser: quiet, alone, readable at every width, usable by keyboard."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_lab.study import build_report
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
WIDTHS = (390, 1280, 1920)

if CHROMIUM is None or CHROMEDRIVER is None:
    pytest.skip(
        "chromium and chromedriver are not installed (apt-get install chromium chromium-driver)",
        allow_module_level=True,
    )
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
waiting = pytest.importorskip("selenium.webdriver.support.wait")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    hostile = "<img src=http://example.invalid/x.png onerror=alert(1)>"
    sweep = SweepBuilder(tmp_path_factory.mktemp("sweep"), epochs=6)
    sweep.base(2).value("2", effect=0.005).value("8").value("32", effect=-0.005)
    sweep.value("0", status="failed", error=hostile)
    folder = sweep.write()
    sweep.grid(kind="simple")
    return build_report(folder)


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
    browser.get(page.as_uri())
    return browser


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


def test_a_grid_opens_in_full_size_and_escape_closes_it(opened):
    resize(opened, 1280)
    opened.execute_script("document.querySelector('.grid a.zoom').focus()")
    opened.switch_to.active_element.send_keys("\ue007")  # Enter
    viewer = opened.find_element("id", "viewer")
    assert viewer.get_property("open")
    shown = opened.execute_script("return document.querySelector('#viewer img').naturalWidth")
    assert shown == 700
    opened.switch_to.active_element.send_keys("\ue00c")  # Escape
    assert not viewer.get_property("open")


def test_the_table_sorts_by_any_column_from_the_keyboard(opened):
    resize(opened, 1280)
    opened.execute_script("document.querySelectorAll('.values thead button')[2].focus()")
    opened.switch_to.active_element.send_keys("\ue007")
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
    opened.find_element("tag name", "body").send_keys("\ue004")  # Tab
    assert opened.switch_to.active_element.get_attribute("href").endswith("#main")
