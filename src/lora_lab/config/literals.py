"""Texts of others as values that mean themselves: OmegaConf resolves nothing in them.

A run's config.yaml, an imported setting or a caption may hold ``${oc.env:HOME}``. Where such a text
becomes a value of a config, it is escaped, so that what comes out is the text itself.
"""

import re
from typing import Any

_OPENING = re.compile(r"(\\*)\$\{")


def literal(text: str) -> str:
    r"""Return a text that OmegaConf resolves to ``text``: ``${a}`` becomes ``\${a}``.

    Backslashes count only in front of ``${``, where each is written twice.
    """
    return _OPENING.sub(lambda found: f"{found[1] * 2}\\${{", text)


def literals(tree: Any) -> Any:
    """Return a tree of mappings and lists whose texts are literals; keys are never resolved."""
    if isinstance(tree, dict):
        return {key: literals(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [literals(value) for value in tree]
    return literal(tree) if isinstance(tree, str) else tree
