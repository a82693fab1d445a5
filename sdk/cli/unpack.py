"""boardfit unpack: the plain model files, for other apps."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from boardfit.bundle import Bundle, Manifest
    from boardfit.specs import Artifact, TensorSpec

EXAMPLE = """\
examples:
  boardfit unpack lite0.boardfit -o lite0
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "unpack",
        help="write the plain .tflite, .onnx and ncnn files for other apps",
        description="Write the model files under speaking names, the labels, and a README.txt that says "
        "what goes in and what comes out.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="folder to write to")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files."""
    from pathlib import Path

    from boardfit.bundle import open_bundle
    from boardfit.errors import BundleError
    from boardfit.files import write_whole

    folder = Path(args.out)
    try:
        with open_bundle(args.bundle) as bundle:
            _require_room(folder, args.force)
            contents = plain_files(bundle)
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in contents.items():
                write_whole(folder / name, data)
    except OSError as error:
        raise BundleError(
            f"cannot write to {folder} ({error.strerror or error}): make room, or choose another folder"
        ) from error
    print(f"wrote {len(contents)} files to {folder}: {', '.join(contents)}")
    return 0


def plain_files(bundle: Bundle) -> dict[str, bytes]:
    """Return contents by plain file name: the models, labels.txt and README.txt."""
    manifest = bundle.manifest
    files: dict[str, bytes] = {}
    for artifact in manifest.artifacts:
        data = bundle.artifact_files(artifact)
        for path, name in plain_names(manifest.name, artifact).items():
            files[name] = data[path]
    if manifest.labels:
        files["labels.txt"] = "".join(f"{label}\n" for label in manifest.labels).encode()
    files["README.txt"] = readme_text(manifest, bundle.content_id).encode()
    return files


def plain_names(name: str, artifact: Artifact) -> dict[str, str]:
    """Return file names such as ``lite0-fp32.tflite`` by the path inside the bundle."""
    import re

    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "model"
    # What the artifact's name has behind its format: "fp32", or "fp32-224".
    rest = artifact.name[len(artifact.format) + 1 :]
    kind = ".ncnn" if artifact.format == "ncnn" else ""
    return {path: f"{stem}-{rest}{kind}.{path.rpartition('.')[2]}" for path in artifact.files}


def readme_text(manifest: Manifest, content_id: str) -> str:
    """Return what somebody needs who has only the plain files."""
    from boardfit.cli.text import image_text, policy_text

    image = manifest.image
    lines = [
        f"{manifest.name}: plain model files from a boardfit bundle",
        f"content id {content_id}",
        "",
        f"Preprocessing: {image_text(image)}.",
        f"Pixels are 0 to 255 before that; the channels stand in the order {image.channels.upper()}.",
        f"Sizes in the bundle: {policy_text(manifest.policy)}.",
        "The answer is the largest value of the first output"
        + ("; its index is the line in labels.txt, from 0." if manifest.labels else "."),
    ]
    for artifact in manifest.artifacts:
        names = ", ".join(plain_names(manifest.name, artifact).values())
        lines += ["", names, f"  sizes: {', '.join(map(str, artifact.sizes))} pixels, square"]
        lines += [f"  {note}" for note in _engine_notes(artifact)]
        lines += [f"  input:  {_tensor_text(tensor)}" for tensor in artifact.inputs]
        lines += [f"  output: {_tensor_text(tensor)}" for tensor in artifact.outputs]
    return "\n".join(lines) + "\n"


def _engine_notes(artifact: Artifact) -> list[str]:
    """Return what the bare engine must be told to answer as it does within boardfit."""
    if artifact.format == "tflite" and len(artifact.sizes) > 1:
        return [
            f"the file is bound to {artifact.sizes[-1]} pixels and a batch of one until "
            "resize_tensor_input(index, shape) and allocate_tensors() are called"
        ]
    if artifact.format == "ncnn" and artifact.precision == "fp32":
        return [
            "for full precision set opt.use_fp16_packed, opt.use_fp16_storage, opt.use_fp16_arithmetic and "
            "opt.use_bf16_storage to false before loading"
        ]
    return []


def _tensor_text(tensor: TensorSpec) -> str:
    shape = "x".join("?" if axis is None else str(axis) for axis in tensor.shape)
    extra = tensor.layout or {"none": "values", "softmax": "probabilities (softmax applied)"}.get(
        tensor.activation, tensor.activation
    )
    return f"{tensor.name}: {tensor.dtype} {shape}, {extra}"


def _require_room(folder: Path, force: bool) -> None:
    from boardfit.errors import BundleError

    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file: choose another folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise BundleError(f"{folder} is not empty: choose another folder, or add --force")
