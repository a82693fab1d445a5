"""The types of options that several subcommands have: lists with commas, counts, cores, sizes of frames."""

from __future__ import annotations

import argparse


def words(text: str) -> tuple[str, ...]:
    """Return words with commas between them, each once."""
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r}: expected words with commas between them")
    return found


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least 1")
    return int(text)


def counts(text: str) -> tuple[int, ...]:
    """Return whole numbers of at least 1 with commas between them, each once."""
    return tuple(dict.fromkeys(map(count, text.split(","))))


def cores(text: str) -> tuple[int, ...]:
    """Return the cores of a list as ``taskset -c`` takes it: ``0-3,6``; none for ``all``."""
    if text == "all":
        return ()
    found: set[int] = set()
    for word in text.split(","):
        low, dash, high = word.strip().partition("-")
        last = high if dash else low
        if not (low.isdecimal() and last.isdecimal() and int(low) <= int(last) < 4096):
            raise argparse.ArgumentTypeError(f"{text!r}: expected a list of cores such as 0-3,6, or 'all'")
        found.update(range(int(low), int(last) + 1))
    return tuple(sorted(found))


def size_wh(text: str) -> tuple[int, int]:
    """Return a width and a height in pixels, as in ``640x480``."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size such as 640x480")
    return int(width), int(height)
