"""boardfit inspect: what a bundle holds, or what a source is before it is built."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.bundle import Bundle
    from boardfit.cli.measured import Measured

EXAMPLE = """\
examples:
  boardfit inspect lite0.boardfit
  boardfit inspect lite0.boardfit --json | jq .manifest.policy
  boardfit inspect net.onnx
  boardfit inspect my_package.nets:small            a PyTorch factory, which is run
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "inspect",
        help="show what a bundle holds, or what a model is",
        description="Show what a bundle holds: its models, their sizes, how they were proven, and how long "
        "they take on the machine that built it. Of a model that is not built yet: inputs, outputs, the "
        "sizes that it can take, parameters and multiplications of each layer, and what cannot be imported "
        "(exit status 1).",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder, or a model")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the bundle's contents, or the survey of a source."""
    from boardfit.bundle import open_bundle
    from boardfit.cli.survey import is_source, survey_text

    if is_source(args.bundle):
        text, whole = survey_text(args.bundle, as_json=args.json)
        print(text)
        return 0 if whole else 1

    with open_bundle(args.bundle) as bundle:
        print(json_text(bundle) if args.json else people_text(bundle))
    return 0


def json_text(bundle: Bundle) -> str:
    """Return the manifest, the content id and the measurements as JSON."""
    return json.dumps(
        {
            "path": bundle.path,
            "content_id": bundle.content_id,
            "manifest": bundle.manifest.to_dict(),
            "measurements": bundle.measurements,
            "signatures": [each.to_dict() for each in bundle.signatures],
        },
        indent=2,
        ensure_ascii=False,
    )


def people_text(bundle: Bundle) -> str:
    """Return the contents as a compact text."""
    from boardfit.cli.measured import read_measured
    from boardfit.cli.quantized import quantized_table
    from boardfit.cli.text import fit_text, image_text, megabytes, policy_text

    manifest, measured = bundle.manifest, read_measured(bundle.measurements)
    tools = ", ".join(f"{name} {version}" for name, version in sorted(manifest.tools.items()))
    lines = [
        f"name        {manifest.name}",
        f"content id  {bundle.content_id}",
        f"task        {manifest.task}, {len(manifest.labels) or 'no'} labels",
        f"image       {image_text(manifest.image)}",
        *([f"trained     {measured.trained}"] if measured.trained else []),
        f"policy      {policy_text(manifest.policy)}",
        *([f"fitted      {fit_text(manifest.policy.fit)}"] if manifest.policy.fit else []),
        f"files       {len(manifest.files)}, {megabytes(sum(entry.size_bytes for entry in manifest.files))}",
        f"self-test   {'golden frame' if manifest.golden else 'none'}",
        *([f"signed      {_signed_text(bundle)}"] if bundle.signatures else []),
        f"built with  {tools or 'unknown tools'}",
        "",
        artifact_table(bundle, measured),
    ]
    if quantized := quantized_table(bundle.measurements):
        lines += ["", quantized]
    if measured.machine:
        lines += ["", f"measured on {measured.machine}: ms is the median of the engine alone, one frame"]
    return "\n".join(lines)


def _signed_text(bundle: Bundle) -> str:
    keys = ", ".join(each.key_id[:16] for each in bundle.signatures)
    return f"says key {keys}; not checked here: boardfit verify --key"


def artifact_table(bundle: Bundle, measured: Measured) -> str:
    """Return one line per artifact and size."""
    from boardfit.cli.text import megabytes, table

    sizes = {entry.path: entry.size_bytes for entry in bundle.manifest.files}
    rows = []
    for artifact in bundle.manifest.artifacts:
        size_bytes = sum(sizes[path] for path in artifact.files)
        for index, size in enumerate(artifact.sizes):
            own = [artifact.name, megabytes(size_bytes)] if index == 0 else ["", ""]
            parity, times = measured.parity_cells(artifact, size), measured.time_cells(artifact, size)
            rows.append([*own, str(size), *parity, *times])
    header = ["artifact", "file", "size", "images", "max/range", "cosine", "flips", "ms", "engine"]
    return table(header, rows, left=(0, 8))
