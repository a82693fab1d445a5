"""Writes the bundles of hostile.json, each of which a reader must refuse.

The table is data, so that a reader in another language can be run against it:

    python tests/sdk/bundle/hostile.py FOLDER

writes one file or folder per case, and index.json with the fault of each. A case changes a good bundle of
made-up files: its ``do`` is a list of steps, applied in order, those on the tree before those on the zip.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("hostile.json")

LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
END = struct.Struct("<4s4H2LH")
_COMMON = ["flags", "method", "time", "date", "crc32", "packed", "size", "name_bytes", "extra_bytes"]
_FURTHER = ["comment_bytes", "disk", "internal", "external", "offset"]
_WHERE = ["directory_bytes", "directory_offset"]
FIELDS = {
    "local": ["magic", "version", *_COMMON],
    "central": ["magic", "made_by", "version", *_COMMON, *_FURTHER],
    "end": ["magic", "disk", "start_disk", "count", "total", *_WHERE, "comment_bytes"],
}


@dataclass
class Draft:
    """A bundle that is being spoilt: its files, then the fields of its zip."""

    files: dict[str, bytes]
    order: list[str] = field(default_factory=list)
    links: list[list[str]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    fields: list[tuple[str, str, str, Any]] = field(default_factory=list)
    extra: dict[str, bytes] = field(default_factory=dict)
    before: bytes = b""
    after: bytes = b""
    gap: bytes = b""


def base() -> Draft:
    """Return a good bundle: a model of one .tflite file and one of two for ncnn, and a golden frame."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    frame = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(range(12))
    files = {
        "golden/frame.npy": frame,
        "models/a.bin": bytes(40),
        "models/a.param": b"7767517\n",
        "models/a.tflite": bytes(range(64)),
    }
    draft = Draft(files)
    tensors = {"name": "t", "shape": [None, 3], "dtype": "float32", "layout": "", "activation": "none"}
    image = {**tensors, "name": "image", "shape": [None, None, None, 3], "layout": "NHWC"}
    artifact = {"precision": "fp32", "sizes": [32], "inputs": [image], "outputs": [tensors]}
    manifest = {
        "schema": 2,
        "name": "hostile",
        "task": "classify",
        "labels": ["a", "b", "c"],
        "image": {"resize": "area", "crop": 0.875, "channels": "rgb", "mean": [0.0] * 3, "std": [255.0] * 3},
        "policy": {
            "kind": "fixed",
            "sizes": [32],
            "thresholds_bits": [],
            "hysteresis_bits": 0.2,
            "second_look_bits": 1.0,
            "second_size": None,
            "third_look_bits": None,
            "average": False,
            "fit": None,
        },
        "artifacts": [
            {**artifact, "format": "tflite", "files": ["models/a.tflite"]},
            {**artifact, "format": "ncnn", "files": ["models/a.param", "models/a.bin"]},
        ],
        "files": [],
        "golden": {"frame": "golden/frame.npy", "inputs": [], "outputs": []},
        "recipe": {"note": "MARK"},
        "tools": {},
    }
    files["measurements.json"] = dump({"schema": 1, "note": "MARK"})
    list_files(draft, manifest)
    return draft


def dump(data: Any) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def list_files(draft: Draft, manifest: dict[str, Any]) -> None:
    """List the files in the manifest, and write it and the checksum list anew."""
    own = ("manifest.json", "measurements.json", "signatures.json", "SHA256SUMS")
    manifest["files"] = [
        {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        for path, data in sorted(draft.files.items())
        if path not in own
    ]
    draft.files["manifest.json"] = dump(manifest)
    sum_up(draft)


def sum_up(draft: Draft) -> None:
    """Write the checksum list anew, so that the fault of a case is not just a wrong hash."""
    draft.files.pop("SHA256SUMS", None)
    draft.order = sorted(draft.files, key=lambda path: (path != "manifest.json", path))
    lines = [f"{hashlib.sha256(draft.files[path]).hexdigest()}  {path}\n" for path in draft.order]
    draft.files["SHA256SUMS"] = "".join(lines).encode()
    draft.order = sorted(draft.files, key=lambda path: (path != "manifest.json", path))


def spoil(draft: Draft, step: list[Any]) -> None:
    """Apply one step of the table to the tree, or note it for the zip."""
    name, *given = step
    if name == "set":  # a value in the manifest, by its keys
        manifest = json.loads(draft.files["manifest.json"])
        place = manifest
        for key in given[0][:-1]:
            place = place[key]
        place[given[0][-1]] = given[1]
        draft.files["manifest.json"] = dump(manifest)
        sum_up(draft)
    elif name == "text":  # a piece of a text file; "times" repeats what is put in
        path, old, new, *times = given
        put = new.encode("utf-8", "surrogateescape") * (times[0] if times else 1)
        assert old.encode() in draft.files[path]
        draft.files[path] = draft.files[path].replace(old.encode(), put)
        if path != "SHA256SUMS":
            sum_up(draft)
    elif name == "nest":  # lists within each other in place of a text
        path, old, depth = given
        nested = b"[" * depth + b"]" * depth
        draft.files[path] = draft.files[path].replace(json.dumps(old).encode(), nested)
        sum_up(draft)
    elif name == "model":  # other bytes of a listed file, with its hash and size
        draft.files[given[0]] = bytes.fromhex(given[1])
        list_files(draft, json.loads(draft.files["manifest.json"]))
    elif name == "flip":
        data = bytearray(draft.files[given[0]])
        data[given[1]] ^= 1
        draft.files[given[0]] = bytes(data)
    elif name == "cut":
        draft.files[given[0]] = draft.files[given[0]][: -given[1]]
    elif name == "grow":
        draft.files[given[0]] += bytes(given[1])
    elif name == "add":
        draft.files[given[0]] = b"x"
        draft.order = [*draft.order, given[0]]
    elif name == "remove":
        del draft.files[given[0]]
        draft.order.remove(given[0])
    elif name == "list":  # a file under a name, listed as it should be
        path, data = given
        draft.files[path] = data.encode()
        list_files(draft, json.loads(draft.files["manifest.json"]))
    else:
        spoil_form(draft, name, given)


def spoil_form(draft: Draft, name: str, given: list[Any]) -> None:
    """Note a step on links, names or fields of the zip."""
    if name in ("symlink", "hardlink", "fifo", "socket", "folder-link"):
        draft.links.append([name, *given])
    elif name == "rename":  # in the zip alone, headers and directory
        draft.names[given[0]] = given[1]
    elif name in FIELDS:
        draft.fields.append((name, *given))  # type: ignore[arg-type]
    elif name == "twice":
        draft.order = [*draft.order, given[0]]
    elif name == "swap":
        first, second = (draft.order.index(path) for path in given)
        draft.order[first], draft.order[second] = draft.order[second], draft.order[first]
    elif name == "extra":
        draft.extra[given[0]] = bytes.fromhex(given[1])
    else:
        assert name in ("before", "after", "gap"), name
        setattr(draft, name, bytes.fromhex(given[0]))


def zip_bytes(draft: Draft) -> bytes:
    """Return the zip with the fields that the steps ask for."""
    out, directory = bytearray(draft.before), bytearray()
    for path in draft.order:
        data, name = draft.files[path], draft.names.get(path, path).encode("utf-8", "surrogateescape")
        crc, count, extra = zlib.crc32(data), len(data), draft.extra.get(path, b"")
        local = [b"PK\x03\x04", 20, 0, 0, 0, 33, crc, count, count, len(name), len(extra)]
        central = [b"PK\x01\x02", 788, 20, 0, 0, 0, 33, crc, count, count, len(name), len(extra)]
        central += [0, 0, 0, 0o100644 << 16, len(out)]
        for record, values in (("local", local), ("central", central)):
            for kind, of, key, value in draft.fields:
                if (kind, of) == (record, path):
                    values[FIELDS[kind].index(key)] = value
        out += LOCAL.pack(*local) + name + extra + data
        directory += CENTRAL.pack(*central) + name + extra
        out += draft.gap
    end = [b"PK\x05\x06", 0, 0, len(draft.order), len(draft.order), len(directory), len(out), 0]
    for kind, _, key, value in draft.fields:
        if kind == "end":
            end[FIELDS["end"].index(key)] = value
    return bytes(out + directory + END.pack(*end) + draft.after)


def write_folder(draft: Draft, out: Path) -> None:
    """Write the tree, then replace files by links and the like."""
    for path, data in draft.files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)
    for kind, path in draft.links:
        place, aside = out / path, out.with_name(f"{out.name}-aside")
        if kind == "symlink":
            place.rename(aside)
            place.symlink_to(aside)
        elif kind == "folder-link":
            place.rename(aside)
            place.symlink_to(aside, target_is_directory=True)
        elif kind == "hardlink":
            os.link(place, aside)
        elif kind == "fifo":
            place.unlink()
            os.mkfifo(place)
        else:
            place.unlink()
            before = Path.cwd()
            os.chdir(place.parent)  # the name of a socket may have 107 bytes
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(place.name)
            os.chdir(before)


def cases() -> list[dict[str, Any]]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def write_case(case: dict[str, Any], out: Path) -> None:
    """Write the file or the folder of one case."""
    draft = base()
    for step in case["do"]:
        spoil(draft, step)
    if case["form"] == "folder":
        write_folder(draft, out)
    else:
        out.write_bytes(zip_bytes(draft))


def main(argv: list[str]) -> int:
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases():
        write_case(case, folder / f"{case['name']}{'' if case['form'] == 'folder' else '.boardfit'}")
    (folder / "index.json").write_bytes(dump([{k: c[k] for k in ("name", "form", "by")} for c in cases()]))
    print(f"{len(cases())} hostile bundles in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
