"""What this package declares to need, for those who install it elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence


def requirements(extra: str = "") -> dict[str, str]:
    """Return this package's own requirements by name: of the base, or of an extra."""
    from importlib.metadata import requires

    found = {}
    for line in requires("boardfit") or []:
        text, _, marker = line.partition(";")
        named = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if (named.group(1) if named else "") == extra:
            name = re.match(r"[A-Za-z0-9._-]+", text.strip())
            assert name is not None
            found[name.group().lower().replace("_", "-")] = text.strip()
    return found


def engine_requirements(engine: str) -> dict[str, str]:
    """Return what pip is told for an engine, by the module that it brings; empty for one that needs none.

    Args:
        engine: Name of the engine without a variant.
    """
    from boardfit.cli.checkup import EXTRAS
    from boardfit.runtime.engines import find_engine

    if engine not in EXTRAS:
        return {}
    modules: Sequence[str] = getattr(find_engine(engine), "libraries", ())
    wanted = requirements(EXTRAS[engine])
    return {module: wanted[module.replace("_", "-")] for module in modules}
