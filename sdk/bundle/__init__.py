"""The bundle: one file, or the same tree as a folder, that holds a model in all its forms.

``rules``, ``manifest`` and ``layout`` decide and open no file; ``store`` opens files and decides nothing;
``reader``, ``writer`` and ``verify`` join the two.
"""

from __future__ import annotations

from boardfit.bundle.manifest import FileEntry, Golden, Manifest
from boardfit.bundle.reader import Bundle, open_bundle
from boardfit.bundle.verify import verify_bundle
from boardfit.bundle.writer import check_target, write_bundle, write_tree

__all__ = [
    "Bundle",
    "FileEntry",
    "Golden",
    "Manifest",
    "check_target",
    "open_bundle",
    "verify_bundle",
    "write_bundle",
    "write_tree",
]
