from __future__ import annotations

import ctypes
import gc
import weakref

import pytest

from boardfit.converters.memory import give_back_memory


class Node:
    """Refers to itself, as a converter's graph does."""

    def __init__(self):
        self.me = self


def test_what_refers_to_itself_is_freed():
    gc.disable()
    try:
        seen = weakref.ref(Node())
        assert seen() is not None
        give_back_memory()
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("missing", [OSError, AttributeError], ids=["no such library", "no such function"])
def test_other_systems_have_no_trim(missing, monkeypatch):
    def absent(name):
        raise missing(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    give_back_memory()
