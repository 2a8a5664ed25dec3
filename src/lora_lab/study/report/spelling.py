"""Figures as people read them."""

import math
from collections.abc import Sequence

NONE = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(value: float, digits: int = 4) -> str:
    """0.10764 -> 0.1076; 0.0015 -> 1.5 × 10⁻³; – when not measured."""
    if not math.isfinite(value):
        return NONE if math.isnan(value) else str(value)
    if value != 0 and not 0.01 <= abs(value) < 10**6:
        mantissa, exponent = f"{value:.{max(0, digits - 2)}e}".split("e")
        return f"{_minus(mantissa)} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return _minus(f"{value:.{digits}g}")


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign."""
    if not math.isfinite(value):
        return NONE
    return ("+" if value > 0 else "") + plain(value, digits)


def percent(share: float) -> str:
    """A share with its sign: 0.0123 -> +1.2 %."""
    if not math.isfinite(share):
        return NONE
    return ("+" if share > 0 else "−" if share < 0 else "") + magnitude(share)


def magnitude(share: float) -> str:
    """A share without its sign: -0.0123 -> 1.2 %."""
    if not math.isfinite(share):
        return NONE
    figure = abs(share) * 100
    digits = 0 if figure >= 100 else 1 if figure >= 0.95 else 2
    return f"{figure:.{digits}f} %"


def way_text(share: float) -> str:
    """A share of a way, which may lie before its beginning: 0.743 -> 74 %, -0.02 -> −2 %."""
    return f"{_minus(f'{share * 100:.0f}')} %" if math.isfinite(share) else NONE


def step_time(seconds: float) -> str:
    """0.0251 -> 25 ms."""
    if not math.isfinite(seconds):
        return NONE
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def size(count: float) -> str:
    """1400000000 -> 1.40 GB."""
    if not math.isfinite(count):
        return NONE
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} B"


def listed(words: Sequence[str], most: int = 6) -> str:
    """a, b and c; or a, b, c and 12 more."""
    words = list(words)
    if len(words) > most:
        return f"{', '.join(words[: most - 1])} and {len(words) - most + 1} more"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _minus(text: str) -> str:
    return text.replace("-", "−")
