"""Draw pocket portraits: avatar art by Pablo Stanley (avataaars), assembled by python_avatars.

A portrait is assembled as SVG, rastered by resvg at 128 px, styled, and reduced to 64 px.
Shapes: images are ``(H, W, 3)`` uint8 arrays.
"""

import io
import random

import numpy as np
import python_avatars as pa
import resvg_py
from PIL import Image, ImageFilter

from lora_lab.pocket import attributes as words
from lora_lab.pocket.attributes import Attributes

SIZE = 64
"""Side of a pocket image, in pixels."""
_RASTER = 128
STYLES = ("plain", "graphic", "photo")

# Lines of at least one and a half of the 64 pixels, in a colour that stands out.
_SCAR = '<g fill="none" stroke="{color}" stroke-width="6" stroke-linecap="round">{strokes}</g>'
_SCAR_COLORS = {"pale": "#D0605E", "light": "#C4504E"}
_SCAR_ON_DARKER_SKIN = "#FFD2C4"
_PRINT = '<g stroke="#1B1B1B" stroke-width="6" stroke-linejoin="round">{shape}</g>'


def avatar_svg(a: Attributes) -> str:
    """The portrait as an SVG document of 264 by 280 units without background."""
    hair = words.HAIR | words.WITHHELD_HAIR
    hair_color = (words.HAIR_COLORS | words.WITHHELD_HAIR_COLORS)[a.hair_color]
    svg = pa.Avatar(
        style=pa.AvatarStyle.TRANSPARENT,
        top=pa.HairType[hair[a.hair]],
        eyebrows=pa.EyebrowType.DEFAULT_NATURAL,
        eyes=pa.EyeType[words.EYES[a.eyes]],
        nose=pa.NoseType.DEFAULT,
        mouth=pa.MouthType[words.MOUTHS[a.mouth]],
        facial_hair=pa.FacialHairType[words.FACIAL_HAIR[a.facial_hair]],
        skin_color=words.SKIN[a.skin],
        hair_color=hair_color,
        facial_hair_color=hair_color,
        accessory=pa.AccessoryType[words.GLASSES[a.glasses]],
        clothing=pa.ClothingType[words.GARMENTS[a.garment]],
        clothing_color=words.COLORS[a.garment_color],
        shirt_graphic=pa.ClothingGraphic.NONE,
    ).render()
    scar = _SCAR.format(
        color=_SCAR_COLORS.get(a.skin, _SCAR_ON_DARKER_SKIN),
        strokes=(words.SCARS | words.WITHHELD_SCARS)[a.scar],
    )
    print_ = _PRINT.format(shape=(words.PRINTS | words.WITHHELD_PRINTS)[a.print])
    head, _, tail = svg.rpartition("</svg>")
    return f"{head}{scar}{print_}</svg>{tail}"


def raster(a: Attributes) -> Image.Image:
    """The portrait as an RGBA image of 128 px, framed by zoom and shift."""
    side = 264 / words.FRAMINGS[a.framing]
    left = (264 - side) / 2 - a.shift_x * 264
    top = 16 + (264 - side) * 0.35 - a.shift_y * 264
    # The frame is cut by the SVG's view box, so that no pixel is resampled.
    framed = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_RASTER}" height="{_RASTER}"'
        f' viewBox="{left:.3f} {top:.3f} {side:.3f} {side:.3f}">{avatar_svg(a)}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=framed, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def _on_background(portrait: Image.Image, color: str) -> Image.Image:
    canvas = Image.new("RGBA", portrait.size, color)
    canvas.alpha_composite(portrait)
    return canvas.convert("RGB")


def _graphic(portrait: Image.Image, color: str) -> np.ndarray:
    """Ink and halftone: dark outlines, few tones, a dotted background."""
    image = np.asarray(_on_background(portrait, color), dtype=np.float32)
    levels = np.round(image / 255 * 8) / 8 * 255
    smooth = np.asarray(
        _on_background(portrait, color).filter(ImageFilter.GaussianBlur(1)), dtype=np.float32
    )
    dy = np.abs(np.diff(smooth, axis=0, append=smooth[-1:])).sum(-1)
    dx = np.abs(np.diff(smooth, axis=1, append=smooth[:, -1:])).sum(-1)
    ink = np.clip((dx + dy - 70) / 60, 0, 1)[..., None]
    y, x = np.mgrid[0:_RASTER, 0:_RASTER]
    dots = (((x + y) // 8 % 2 == 0) & ((x - y) // 8 % 2 == 0)).astype(np.float32)
    empty = 1 - np.asarray(portrait.getchannel("A"), dtype=np.float32) / 255
    levels = levels * (1 - 0.18 * (dots * empty)[..., None])
    return levels * (1 - ink) + 16 * ink


def _photo(portrait: Image.Image, color: str, rng: random.Random) -> np.ndarray:
    """Soft light from one side, a defocused backdrop, a vignette and a little grain."""
    y, x = np.mgrid[0:_RASTER, 0:_RASTER].astype(np.float32) / (_RASTER - 1)
    base = np.asarray(Image.new("RGB", (1, 1), color), dtype=np.float32)[0, 0]
    backdrop = base * (0.8 + 0.3 * np.exp(-((x - 0.5) ** 2 + (y - 0.35) ** 2) / 0.16))[..., None]
    alpha = portrait.getchannel("A")
    shadow = np.asarray(alpha.filter(ImageFilter.GaussianBlur(7)), dtype=np.float32) / 255
    backdrop = backdrop * (1 - 0.25 * shadow[..., None])
    soft = portrait.filter(ImageFilter.GaussianBlur(0.9))
    cover = np.asarray(soft.getchannel("A"), dtype=np.float32)[..., None] / 255
    lit = np.asarray(soft.convert("RGB"), dtype=np.float32) * (1.12 - 0.36 * x[..., None])
    image = backdrop * (1 - cover) + lit * cover
    vignette = 1 - 0.35 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    image = image * vignette[..., None] * np.array([1.05, 1.0, 0.9], dtype=np.float32)
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, 4, image.shape[:2])
    return image + grain[..., None]


def render(a: Attributes, style: str = "plain", rng: random.Random | None = None) -> np.ndarray:
    """Draw one portrait.

    Args:
        a: what to draw.
        style: one of ``STYLES``.
        rng: source of the photo style's grain.

    Returns:
        ``(64, 64, 3)`` uint8.
    """
    portrait, color = raster(a), words.BACKGROUNDS[a.background]
    if style == "plain":
        pixels = np.asarray(_on_background(portrait, color), dtype=np.float32)
    elif style == "graphic":
        pixels = _graphic(portrait, color)
    else:
        pixels = _photo(portrait, color, rng or random.Random(0))
    image = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))
