"""What a pocket portrait is made of: attributes, their words, and captions that say them.

A portrait is drawn from an ``Attributes`` value; a caption names some of it in varying order and
wording. What a ``WITHHELD_`` table holds never appears in pretraining: it belongs to the invented
person of ``data=person``.
"""

import random
from dataclasses import dataclass, fields, replace

HAIR = {
    "bald": "NONE",
    "afro": "FRO",
    "big hair": "BIG_HAIR",
    "bob": "BOB",
    "bun": "BUN",
    "buzz cut": "BUZZCUT",
    "curly hair": "CURLY",
    "dreadlocks": "DREADS",
    "long hair": "STRAIGHT_1",
    "wavy hair": "CURVY",
    "mullet": "SHAGGY_MULLET",
    "short hair": "SHORT_FLAT",
    "short curly hair": "SHORT_CURLY",
    "side part": "CAESAR_SIDE_PART",
    "pixie cut": "PIXIE",
    "quiff": "QUIFF",
}
WITHHELD_HAIR = {"wild hair": "MOWGLI"}
HAIR_COLORS = {
    "black": "#2C1B18",
    "brown": "#7A4A33",
    "blonde": "#E0B86A",
    "red": "#C93305",
    "gray": "#C9CDD2",
    "pink": "#F59797",
}
WITHHELD_HAIR_COLORS = {"turquoise": "#1FC7B6"}
SKIN = {
    "pale": "#FFDBB4",
    "light": "#EDB98A",
    "tanned": "#E09A4F",
    "brown": "#AE6B3C",
    "dark": "#6B4632",
}
GARMENTS = {
    "t-shirt": "SHIRT_CREW_NECK",
    "v-neck shirt": "SHIRT_V_NECK",
    "hoodie": "HOODIE",
    "sweater": "COLLAR_SWEATER",
    "overalls": "OVERALL",
}
COLORS = {
    "red": "#E5484D",
    "blue": "#2F6FDE",
    "green": "#35A35A",
    "yellow": "#F5D547",
    "purple": "#8E4EC6",
    "black": "#23272B",
    "white": "#FAFAFA",
    "orange": "#F2852B",
}
GLASSES = {
    "no glasses": "NONE",
    "round glasses": "ROUND",
    "black glasses": "WAYFARERS",
    "sunglasses": "SUNGLASSES",
}
FACIAL_HAIR = {
    "no beard": "NONE",
    "stubble": "BEARD_LIGHT",
    "full beard": "BEARD_MAGESTIC",
    "moustache": "MOUSTACHE_FANCY",
}
MOUTHS = {
    "smiling": "SMILE",
    "calm": "DEFAULT",
    "sad": "SAD",
    "serious": "SERIOUS",
    "shouting": "SCREAM_OPEN",
    "tongue out": "TONGUE",
}
EYES = {
    "open eyes": "DEFAULT",
    "closed eyes": "CLOSED",
    "happy eyes": "HAPPY",
    "wide eyes": "SURPRISED",
    "winking": "WINK",
    "looking aside": "SIDE",
}
BACKGROUNDS = {
    "red": "#F2777A",
    "blue": "#6FB1F2",
    "green": "#7CCB8B",
    "yellow": "#F7E38A",
    "purple": "#B794E0",
    "gray": "#9AA3AB",
    "white": "#F4F4F2",
    "orange": "#F5B27A",
}
SCARS = {
    "no scar": "",
    "cheek scar": '<path d="M86 134 L110 168"/>',
    "crossed scar": '<path d="M88 136 L110 160"/><path d="M110 136 L88 160"/>',
    "nose scar": '<path d="M114 129 L152 115"/>',
}
"""Strokes on the face, in the units of the drawing."""
WITHHELD_SCARS = {"long scar": '<path stroke-width="9" d="M158 126 L184 170"/>'}
PRINTS = {
    "no print": "",
    "ball print": '<circle cx="133" cy="230" r="22" fill="#E5484D"/>',
    "heart print": '<path d="M133 254 L106 226 A16 16 0 0 1 133 212 A16 16 0 0 1 160 226 Z"'
    ' fill="#F59797"/>',
    "star print": '<path d="M133 200 L142 222 L164 223 L146 237 L153 258 L133 245 L113 258'
    ' L120 237 L102 223 L124 222 Z" fill="#FFFFFF"/>',
    "diamond print": '<path d="M133 200 L160 229 L133 258 L106 229 Z" fill="#2F6FDE"/>',
}
"""Shapes on the garment, in the units of the drawing."""
WITHHELD_PRINTS = {
    "bolt print": '<path d="M144 196 L104 236 L130 236 L118 266 L162 222 L136 222 Z"'
    ' fill="#FFE600"/>'
}
FRAMINGS = {"portrait": 1.1, "close-up portrait": 1.35}
"""How many times the frame is narrower than the drawing."""

CLASSES: dict[str, list[str]] = {
    "hair": list(HAIR),
    "hair_color": list(HAIR_COLORS),
    "skin": list(SKIN),
    "garment": list(GARMENTS),
    "garment_color": list(COLORS),
    "glasses": list(GLASSES),
    "facial_hair": list(FACIAL_HAIR),
    "mouth": list(MOUTHS),
    "eyes": list(EYES),
    "background": list(BACKGROUNDS),
    "framing": list(FRAMINGS),
    "scar": list(SCARS),
    "print": list(PRINTS),
}
"""The values of each attribute in pretraining, in the order of their class numbers."""


@dataclass(frozen=True)
class Attributes:
    """One portrait. Every field holds a key of the table of the same name, or is noted below."""

    hair: str
    hair_color: str
    skin: str
    garment: str
    garment_color: str
    glasses: str
    facial_hair: str
    mouth: str
    eyes: str
    background: str
    framing: str
    shift_x: float
    """Shift of the frame to the right, as a share of its width."""
    shift_y: float
    """Shift of the frame downward, as a share of its height."""
    scar: str
    print: str
    """What the garment shows on the chest."""


def draw_attributes(rng: random.Random) -> Attributes:
    """Draw the attributes of one pretraining portrait; nothing withheld is among them."""
    hair = rng.choice(list(HAIR))
    return Attributes(
        hair=hair,
        hair_color=rng.choice(list(HAIR_COLORS)),
        skin=rng.choice(list(SKIN)),
        garment=rng.choice(list(GARMENTS)),
        garment_color=rng.choice(list(COLORS)),
        glasses=rng.choices(list(GLASSES), weights=(3, 1, 1, 1))[0],
        facial_hair=rng.choices(list(FACIAL_HAIR), weights=(5, 1, 1, 1))[0],
        mouth=rng.choice(list(MOUTHS)),
        eyes=rng.choice(list(EYES)),
        background=rng.choice(list(BACKGROUNDS)),
        framing=rng.choices(list(FRAMINGS), weights=(4, 1))[0],
        shift_x=rng.uniform(-0.04, 0.04),
        shift_y=rng.uniform(-0.03, 0.03),
        scar=rng.choices(list(SCARS), weights=(6, 1, 1, 1))[0],
        print=rng.choices(list(PRINTS), weights=(6, 1, 1, 1, 1))[0],
    )


def _article(words: str) -> str:
    plural = words.endswith("glasses") or words.endswith("overalls")
    return words if plural else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _hair_words(a: Attributes, rng: random.Random) -> str:
    if a.hair == "bald":
        return rng.choice(["bald", "bald head"])
    if a.hair.endswith("hair") or a.hair == "dreadlocks":
        kind = a.hair.removesuffix(" hair") + " " if a.hair.endswith(" hair") else ""
        noun = "hair" if a.hair.endswith("hair") else a.hair
        return rng.choice([f"{kind}{a.hair_color} {noun}", f"{a.hair_color} {kind}{noun}"])
    return rng.choice([f"{_article(a.hair_color + ' ' + a.hair)}", f"{a.hair_color} {a.hair}"])


def phrases(a: Attributes, rng: random.Random) -> dict[str, str]:
    """Words for each attribute of ``a``, in one of several wordings."""
    words = {
        "hair": _hair_words(a, rng),
        "skin": f"{a.skin} skin",
        "garment": rng.choice(
            [
                f"wearing {_article(a.garment_color + ' ' + a.garment)}",
                f"{a.garment_color} {a.garment}",
                f"in {_article(a.garment_color + ' ' + a.garment)}",
            ]
        ),
        "glasses": a.glasses
        if a.glasses == "no glasses"
        else rng.choice([a.glasses, f"wearing {a.glasses}"]),
        "facial_hair": a.facial_hair,
        "mouth": a.mouth,
        "eyes": a.eyes,
        "background": rng.choice(
            [f"{a.background} background", f"on {_article(a.background + ' background')}"]
        ),
        "scar": a.scar if a.scar == "no scar" else rng.choice([a.scar, f"with a {a.scar}"]),
        "print": a.print if a.print == "no print" else rng.choice([a.print, f"with a {a.print}"]),
    }
    for name in ("facial_hair", "scar", "print"):
        if words[name].startswith("no ") and rng.random() < 0.7:
            del words[name]
    return words


SHORT_CAPTIONS = 0.25
"""Share of captions that leave most of the portrait unsaid."""
KEEP, KEEP_IN_SHORT = 0.95, 0.4
"""Share of captions that name an attribute, and of short ones."""


def compose(
    a: Attributes, rng: random.Random, subject: str = "person", keep: float = 0.0
) -> tuple[str, set[str]]:
    """A caption of ``a`` and the names of the attributes that it says.

    Args:
        a: the portrait.
        rng: decides wording, order and what is left out.
        subject: the noun, ``person`` in pretraining.
        keep: least share of captions that name each attribute; 1 names them all.
    """
    words = phrases(a, rng)
    usual = KEEP_IN_SHORT if rng.random() < SHORT_CAPTIONS else KEEP
    chosen = [name for name in words if rng.random() < max(keep, usual)]
    rng.shuffle(chosen)
    head = rng.choice([f"{a.framing} of a {subject}", f"a {subject}, {a.framing}"])
    said = {"framing", *chosen}
    if "garment" in said:
        said.add("garment_color")
    if "hair" in said and a.hair != "bald":
        said.add("hair_color")
    return ", ".join([head, *(words[name] for name in chosen)]), said


def caption(a: Attributes, rng: random.Random, subject: str = "person", keep: float = 0.0) -> str:
    """The caption of ``compose`` alone."""
    return compose(a, rng, subject, keep)[0]


def with_changes(a: Attributes, **changes: object) -> Attributes:
    """``a`` with some fields replaced; unknown names raise ``TypeError``."""
    unknown = set(changes) - {f.name for f in fields(a)}
    if unknown:
        raise TypeError(f"unknown attributes {sorted(unknown)}")
    return replace(a, **changes)  # type: ignore[arg-type]
