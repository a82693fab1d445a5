"""Damages bytes as a bad disk or an attacker may: the same seed, the same damage."""

from __future__ import annotations

import random
import re

INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63)
WORDS = (
    "-1",
    "0",
    "1",
    "2147483647",
    "-2147483648",
    "4294967296",
    "1e999",
    "NaN",
    "null",
    "true",
    '""',
    "[]",
    "{}",
)


def mutate(data: bytes, seed: int, *, text: bool = False) -> bytes:
    """Return damaged bytes.

    Args:
        data: What is damaged.
        seed: Which damage.
        text: Whether numbers and words are exchanged too.
    """
    chance = random.Random(seed)
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        steps = (_flip, _byte, _number, _cut, _insert, _copy, _zero)
        if text:
            steps = (*steps, _word, _word, _word, _word)
        chance.choice(steps)(out, chance)
        if not out:
            break
    return bytes(out)


def _flip(out: bytearray, chance: random.Random) -> None:
    out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)


def _byte(out: bytearray, chance: random.Random) -> None:
    out[chance.randrange(len(out))] = chance.randrange(256)


def _number(out: bytearray, chance: random.Random) -> None:
    width = chance.choice((1, 2, 4, 8))
    at = chance.randrange(len(out)) // width * width
    value = chance.choice(INTERESTING) % (1 << (8 * width))
    out[at : at + width] = value.to_bytes(width, chance.choice(("little", "little", "big")))


def _cut(out: bytearray, chance: random.Random) -> None:
    begin = chance.randrange(len(out))
    del out[begin : begin + chance.choice((1, 4, 64, len(out)))]


def _insert(out: bytearray, chance: random.Random) -> None:
    begin = chance.randrange(len(out) + 1)
    out[begin:begin] = chance.randbytes(chance.choice((1, 4, 64)))


def _copy(out: bytearray, chance: random.Random) -> None:
    length = chance.choice((1, 4, 16, 128))
    source, target = chance.randrange(len(out)), chance.randrange(len(out))
    out[target : target + length] = out[source : source + length]


def _zero(out: bytearray, chance: random.Random) -> None:
    begin = chance.randrange(len(out))
    length = min(chance.choice((4, 64)), len(out) - begin)
    out[begin : begin + length] = bytes(length)


def _word(out: bytearray, chance: random.Random) -> None:
    found = list(re.finditer(rb'-?\d+(?:\.\d+)?|"[^"\n]*"|[A-Za-z_]\w*', bytes(out)))
    if not found:
        return
    chosen = chance.choice(found)
    new = chance.choice((chance.choice(WORDS).encode(), chance.choice(found)[0]))
    out[chosen.start() : chosen.end()] = new
