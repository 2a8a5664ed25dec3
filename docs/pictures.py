"""Draws the pictures of README and docs anew from the folder of a finished `make demo`.

python docs/pictures.py runs/network.dim --pocket build/pocket

The grids are those of the report, scaled down; the report is opened in Chromium (chromium and
chromedriver have to be installed) and its top is taken.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from lora_lab.files import atomic_path
from lora_lab.pocket.export import NAMES

IMAGES = Path(__file__).resolve().parent / "images"
GRIDS = {
    "demo_grid": "grid_pocket-graphic_simple.png",
    "grid_complex": "grid_pocket-graphic_complex.png",
    "grid_random": "grid_pocket-graphic_random.png",
}
"""Picture of the docs -> grid of the report."""
WIDTH = 1450
"""Pixels of a grid in the docs."""
REPORT_SIZE = (1280, 1750)
SHEETS = tuple(f"samples-{name}.png" for name in NAMES.values())
"""What `make pocket` drew in its work folder: the same prompts in each style."""
SHEET_CROP = (0, 0, 4 * 64, 3 * 64)
SHEET_SCALE = 2
QUALITY = 90


def grid(path: Path) -> Image.Image:
    """A grid in the docs' width; a narrower one stays as it is."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    if picture.width <= WIDTH:
        return picture
    height = round(picture.height * WIDTH / picture.width)
    return picture.resize((WIDTH, height), Image.Resampling.LANCZOS)


def top_of_report(page: Path) -> Image.Image:
    """What a browser shows of the report at first, in a tall window."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--window-size={},{}".format(*REPORT_SIZE))
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        # The window of a headless browser has a bar of its own: ask for the page's size.
        width, height = REPORT_SIZE
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        browser.get(page.resolve().as_uri())
        shot = browser.get_screenshot_as_png()
    finally:
        browser.quit()
    return Image.open(io.BytesIO(shot)).convert("RGB")


def styles(work: Path) -> Image.Image:
    """Some portraits of each style side by side."""
    _, _, width, height = SHEET_CROP
    width, height, gap = width * SHEET_SCALE, height * SHEET_SCALE, 16
    together = Image.new("RGB", (3 * width + 2 * gap, height), "white")
    for i, name in enumerate(SHEETS):
        with Image.open(work / name) as sheet:
            part = sheet.convert("RGB").crop(SHEET_CROP)
        together.paste(
            part.resize((width, height), Image.Resampling.NEAREST), (i * (width + gap), 0)
        )
    return together


def write(picture: Image.Image, name: str) -> None:
    """Save a picture of the docs as WebP."""
    with atomic_path(IMAGES / f"{name}.webp") as temporary:
        picture.save(temporary, format="WEBP", quality=QUALITY, method=6)


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep of the embedded model")
    parser.add_argument("--pocket", type=Path, help="work folder of `make pocket`")
    arguments = parser.parse_args()
    report = arguments.sweep / "report"
    for name, file in GRIDS.items():
        write(grid(report / file), name)
    write(top_of_report(report / "index.html"), "report")
    if arguments.pocket:
        write(styles(arguments.pocket), "pocket")


if __name__ == "__main__":
    main()
