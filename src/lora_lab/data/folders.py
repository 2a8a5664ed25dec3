"""Reads a data folder: concepts, regularisation images, held-out images.

kohya's layout is ``train/<repeats>_<trigger> <class>/``, beside it ``reg/<repeats>_<class>/`` and
``held_out/``. Two others are read as well, and the log says as what: the numbered folders without
``train/`` around them, and a folder of loose images, which is one concept shown once an epoch.
"""

import logging
from dataclasses import replace
from pathlib import Path

from lora_lab.checkpoint.embedded import locate
from lora_lab.config import DataConfig
from lora_lab.data.captions import Caption, read_caption, with_trigger
from lora_lab.data.concepts import IMAGE_EXTENSIONS, RESERVED, Concept, find_concepts, is_image
from lora_lab.data.examples import Example, Examples
from lora_lab.data.images import open_image
from lora_lab.data.leftovers import tell_leftovers
from lora_lab.data.masks import mask_path, open_mask
from lora_lab.data.regularization import match_repeats
from lora_lab.errors import ConfigError, LabError, some

log = logging.getLogger(__name__)


def find_examples(config: DataConfig) -> Examples:
    """Read the data folder: images, captions, masks and repeats.

    Raises:
        LabError: A folder is missing, holds no images or has no number in its name; an image, a
            mask or a caption can't be read.
        ConfigError: ``data.batch_size`` is larger than the set, or captions have another extension.
    """
    try:
        return _find(config)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LabError(
            f"{error.filename or config.dir} can't be read ({reason}); check the data folder"
        ) from error


def _find(config: DataConfig) -> Examples:
    root = locate(config.dir)
    train = scan(image_folder(root), config)
    shown = sum(example.repeats for example in train)
    if config.batch_size > shown:
        raise ConfigError(
            f"data.batch_size must be at most {shown} for {root} ({len(train)} images times their "
            f"repeats), got {config.batch_size}; lower it or raise data.repeats"
        )
    _tell_nameless(train, config)
    reg = _regularization(root, config, shown)
    if config.masked_loss and not any(example.mask for example in train + reg):
        raise ConfigError(
            f"data.masked_loss must be false for {root}, got true: no image has a mask; "
            "put image.mask.png beside image.png"
        )
    return Examples(train, _held_out(root, config), reg)


def image_folder(root: Path) -> Path:
    """Where the training images of a data folder are.

    Raises:
        LabError: There are none.
    """
    if (root / "train").is_dir():
        return root / "train"
    numbered = [p.name for p in root.iterdir() if p.is_dir() and p.name[:1].isdigit()]
    loose = sum(is_image(path) for path in root.iterdir())
    if not numbered and not loose:
        raise LabError(
            f"{root / 'train'} is missing; data.dir must hold images in "
            "train/<repeats>_<trigger> <class>/"
        )
    what = f"folders {some(sorted(numbered))}" if numbered else f"{loose} loose images"
    log.info("%s has no train/: its %s are read as if they lay in one", root, what)
    return root


def scan(folder: Path, config: DataConfig, is_reg: bool = False) -> list[Example]:
    """All images of the concepts below a folder, in the order of their keys.

    Args:
        folder: Holds kohya's folders, or loose images.
        config: Caption extension, repeats, trigger, masks.
        is_reg: Whether they are regularisation images, which keep their captions and repeats.

    Raises:
        LabError: See ``find_examples``.
    """
    if not folder.is_dir():
        raise LabError(
            f"{folder} is missing; data.dir must hold images in train/<repeats>_<trigger> <class>/"
        )
    examples = [
        _example(path, concept, folder, config, is_reg)
        for concept in find_concepts(folder)
        for path in concept.images
    ]
    if not examples:
        raise LabError(
            f"{folder} holds no images in folders named <repeats>_<trigger> <class>; put "
            f"{', '.join(sorted(IMAGE_EXTENSIONS))} files there"
        )
    _refuse_unread_captions(examples, config)
    tell_leftovers(folder, config.caption_extension)
    _tell_several_lines(examples, config)
    return examples


def _tell_several_lines(examples: list[Example], config: DataConfig) -> None:
    several = [example.key for example in examples if example.caption.lines > 1]
    if several:
        read, other = (
            ("the first is read, the rest is left out", "all reads every line")
            if config.caption_lines == "first"
            else ("they are joined", "first reads the first alone, as kohya does")
        )
        log.warning(
            "%d of %d captions have several lines (such as that of %s): %s; data.caption_lines=%s",
            *(len(several), len(examples), several[0], read, other),
        )


def _example(
    path: Path, concept: Concept, folder: Path, config: DataConfig, is_reg: bool
) -> Example:
    listed = concept.listed.get(path)
    caption = read_caption(
        path, config.caption_extension, concept.class_text, listed, config.caption_lines
    )
    image = open_image(path)
    mask = mask_path(path, folder.parent if folder.name in RESERVED else folder)
    prefix = "reg/" if is_reg else ""
    if not is_reg:
        caption = replace(caption, text=with_trigger(caption.text, config.trigger))
    return Example(
        key=f"{prefix}{path.parent.name}/{path.name}",
        image=image,
        caption=caption,
        repeats=concept.repeats if is_reg else config.repeats or concept.repeats,
        is_reg=is_reg,
        mask=open_mask(mask, image) if mask is not None and config.masked_loss else None,
    )


def _refuse_unread_captions(examples: list[Example], config: DataConfig) -> None:
    unread = [example.caption.unread for example in examples if example.caption.unread]
    if unread:
        suffix = unread[0].suffix
        raise ConfigError(
            f"data.caption_extension is {config.caption_extension}, but {len(unread)} of "
            f"{len(examples)} images have a {suffix} file instead (such as {unread[0]}); "
            f"set data.caption_extension={suffix}, or remove those files"
        )


def _tell_nameless(train: list[Example], config: DataConfig) -> None:
    nameless: list[Caption] = [e.caption for e in train if e.caption.from_folder]
    if nameless:
        log.warning(
            "%d of %d training images have no %s file beside them: they are called %s",
            len(nameless),
            len(train),
            config.caption_extension,
            some(sorted({repr(caption.text) for caption in nameless})),
        )


def _regularization(root: Path, config: DataConfig, samples: int) -> list[Example]:
    if not config.regularization:
        return []
    if config.reg_dir is not None:
        folder = locate(config.reg_dir)
    elif (root / "reg").is_dir():
        folder = root / "reg"
    else:
        return []
    found = scan(folder, config, is_reg=True)
    used = match_repeats(found, samples)
    if len(used) < len(found):
        log.warning(
            "%d of %d regularisation images in %s are not used: they are matched to the %d "
            "samples of training images; raise data.repeats to use more",
            len(found) - len(used),
            len(found),
            folder,
            samples,
        )
    return used


def _held_out(root: Path, config: DataConfig) -> list[Example]:
    if config.held_out_dir is not None:
        return scan(locate(config.held_out_dir), config)
    return scan(root / "held_out", config) if (root / "held_out").is_dir() else []
