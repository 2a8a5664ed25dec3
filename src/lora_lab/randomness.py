"""Random numbers that depend on what they are for and on nothing else.

Every draw has its own generator, seeded from the run's seed and the names of what is drawn. So two
runs that differ in one setting see the same noise wherever both of them draw it, whatever was drawn
before, in which batch, or by how many workers.
"""

import hashlib

import torch


def derive_seed(seed: int, *keys: str | int) -> int:
    """A seed of its own for each tuple of keys.

    The first 63 bits of SHA-256 over the seed and the keys, each with its type and length, so that
    ("a", "b") and ("ab",) or 1 and "1" never meet.

    Args:
        seed: The run's seed.
        keys: What is drawn, e.g. ``"noise", image_key, step, occurrence``.

    Returns:
        An integer in [0, 2**63), fit for ``torch.Generator.manual_seed``.
    """
    parts = [f"{type(key).__name__}:{len(str(key))}:{key}" for key in (seed, *keys)]
    digest = hashlib.sha256("|".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *keys: str | int) -> torch.Generator:
    """A CPU generator seeded by ``derive_seed(seed, *keys)``."""
    return torch.Generator().manual_seed(derive_seed(seed, *keys))


def shuffled(items: list[str], seed: int, *keys: str | int) -> list[str]:
    """The items in an order that depends on the seed and the keys alone."""
    order = torch.randperm(len(items), generator=generator(seed, *keys))
    return [items[index] for index in order.tolist()]
