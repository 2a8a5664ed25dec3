"""Where an image lies: under its plain name if it is of the latest settings, else under a key.

`<run>/images/<checkpoint>/<prompt>/<step>[-<number>].png` are the images of the settings that were
drawn last. Images of other settings stay beside them as `<name>~<key>.png`, so that nothing is
drawn twice and nothing is lost.
"""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from PIL import Image

from lora_lab.images.png_info import ImageRecipe, read_recipe, write_image

MARK = "~"
_WAITING = 64
"""Images that may wait for being written before drawing waits for them."""


def keyed(path: Path, key: str) -> Path:
    """The name of an image that is not of the latest settings."""
    return path.with_name(f"{path.stem}{MARK}{key}{path.suffix}")


def claim(path: Path, recipe: ImageRecipe, plain_name: bool) -> tuple[Path, bool]:
    """Find an image's place.

    Args:
        path: Its plain name.
        recipe: What it is drawn from.
        plain_name: Whether it gets the plain name. An image of other settings that has this name
            is renamed.

    Returns:
        Where the image lies or is to be written, and whether it is there.
    """
    beside = keyed(path, recipe.key)
    if not plain_name:
        return beside, _holds(beside, recipe)
    if _holds(path, recipe):
        return path, True
    before = read_recipe(path)
    if before is not None:
        os.replace(path, keyed(path, before.key))
    if _holds(beside, recipe):
        os.replace(beside, path)
        return path, True
    return path, False


def _holds(path: Path, recipe: ImageRecipe) -> bool:
    found = read_recipe(path)
    return found is not None and found.key == recipe.key


class ImageWriter:
    """Writes PNG files on another thread, each whole or not at all; use it in a `with` block.

    Several threads may hand images over. Leaving the block waits for all files.

    Raises:
        LabError: On leaving, or earlier: a file could not be written.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="png")
        self._waiting: list[Future[None]] = []
        self._lock = threading.Lock()

    def write(self, path: Path, image: Image.Image, recipe: ImageRecipe) -> None:
        """Write one image as soon as those before it are written."""
        with self._lock:
            if len(self._waiting) >= _WAITING:
                self._waiting.pop(0).result()
            self._waiting.append(self._pool.submit(write_image, path, image, recipe))

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            for future in self._waiting:
                future.result()
