import hashlib

from lora_lab.randomness import derive_seed, generator, shuffled


def test_seed_is_the_first_63_bits_of_sha256():
    digest = hashlib.sha256(b"int:1:7|str:5:noise|int:2:12").digest()
    assert derive_seed(7, "noise", 12) == int.from_bytes(digest, "big") >> 193


def test_keys_that_look_alike_give_different_seeds():
    keys = [("a", "b"), ("ab",), ("a|b",), (1, "1"), ("1", 1), (11,), (1, 1)]
    assert len({derive_seed(0, *key) for key in keys}) == len(keys)


def test_draws_do_not_depend_on_earlier_draws():
    first = generator(1, "noise", "image", 5).get_state()
    generator(1, "noise", "image", 4)
    assert generator(1, "noise", "image", 5).get_state().equal(first)


def test_shuffled_keeps_every_item_and_repeats():
    items = [str(i) for i in range(50)]
    once = shuffled(items, 3, "caption")
    assert sorted(once) == sorted(items) and once != items
    assert shuffled(items, 3, "caption") == once
