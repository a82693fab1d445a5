"""boardfit image: a container image for a board, with the runtime, one engine and the bundle."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.boards.cross.builders import Builder
    from boardfit.boards.cross.context import ImagePlan
    from boardfit.boards.profile import Profile
    from boardfit.bundle import Bundle, Manifest

EXAMPLE = """\
examples:
  boardfit image lite0.boardfit --board raspberry-pi-5 -o image
  boardfit image lite0.boardfit --board generic-armv7l --source env:CAMERA -o image --build
  boardfit image lite0.boardfit --board generic-aarch64 --engine ncnn --precision fp32 --app app.py -o image
  boardfit image lite0.boardfit --board jetson-orin-nano --engine onnxruntime:cuda --wheel *.whl -o image

The folder holds a Dockerfile, a compose file with the camera, and README.md: what to type for docker, podman
and buildah. An app is run as "python3 app.py BUNDLE SOURCE"; with --source env:NAME without SOURCE: it reads
the variable itself. A 32-bit system takes --board generic-armv7l.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "image",
        help="write a container image's build context for a board, or build it",
        description="Write a folder to build a container image in: the runtime, one engine and the part of "
        "the bundle that it runs, as nobody and with a read-only root. Its health check runs the golden "
        "frame.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument("--board", metavar="NAME", required=True, help="a kind of board: see boardfit boards")
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="folder to write; must be new")
    what = parser.add_argument_group("what is in it")
    what.add_argument("--engine", metavar="NAME", help="default: the board's first that runs the bundle")
    what.add_argument(
        "--precision", nargs="+", metavar="P", default=[], help="its files (default: the most exact)"
    )
    what.add_argument("--source", metavar="S", default="0", help="camera, address or env:NAME (default: 0)")
    what.add_argument("--app", metavar="FILE.py", help="a program of yours, in the place of boardfit watch")
    what.add_argument(
        "--requirements", metavar="FILE", help="what the app needs besides the runtime, for pip"
    )
    what.add_argument(
        "--wheel", nargs="+", action="extend", default=[], metavar="FILE", help="to take before the index's"
    )
    how = parser.add_argument_group("how it is built")
    how.add_argument("--base", metavar="IMAGE", default="", help="what it stands on")
    how.add_argument("--build-base", metavar="IMAGE", default="", help="what its libraries are installed in")
    how.add_argument("--tag", metavar="NAME", default="", help="of the image (default: BUNDLE:BOARD)")
    how.add_argument(
        "--build",
        nargs="?",
        const="any",
        choices=("any", "docker", "podman", "buildah"),
        help="build it, too, with the one that is named or the first that is here",
    )
    how.add_argument("--build-arg", action="append", default=[], metavar="N=V", help="for --build")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the context, all of it or nothing, and build it if asked."""
    from boardfit.bundle import open_bundle
    from boardfit.cli.out_folder import new_folder
    from boardfit.errors import BoardfitError, ImageError

    _require_files(args)
    _require_no_film(args)
    profile = _profile(args.board)
    with open_bundle(args.bundle) as bundle:
        plan, part = _plan(bundle, profile, args)
        builder = _builder(plan, args) if args.build else None
        with new_folder(args.out) as draft:
            assert draft is not None
            try:
                _write(draft, plan, bundle, part, args)
            except BoardfitError:
                raise
            except OSError as error:
                raise ImageError(f"cannot write {args.out} ({error.strerror or error})") from error
    print(f"wrote {args.out}: {plan.image} for {profile.title}, {plan.platform}, engine {plan.engine}")
    for note in _notes(plan, args):
        print(f"note: {note}")
    if builder is not None:
        _build(builder, plan, args)
        return 0
    from boardfit.boards.cross.texts import build_lines

    print("\n".join(["build it with one of:", *(f"  {line}" for line in build_lines(plan, args.out))]))
    return 0


def _profile(board: str) -> Profile:
    from boardfit.boards.cross.context import require_platform
    from boardfit.boards.profile import find_profile
    from boardfit.errors import BoardError

    if "://" in board:
        raise BoardError(
            f"{board} is one board's address: an image is made for a kind (see: boardfit boards)"
        )
    profile = find_profile(board)
    require_platform(profile)
    return profile


def _plan(bundle: Bundle, profile: Profile, args: argparse.Namespace) -> tuple[ImagePlan, Manifest]:
    """Decide on the engine and the part of the bundle that it runs."""
    from boardfit.boards.cross.context import ImagePlan
    from boardfit.cli.needs import requirements
    from boardfit.cli.subset import Selection, restrict
    from boardfit.errors import BundleError
    from boardfit.runtime.choose import precisions_of
    from boardfit.runtime.engines import find_engine

    if bundle.manifest.golden is None:
        raise BundleError(
            f"bundle {bundle.manifest.name!r} has no golden frame for the health check: build it again with "
            "images"
        )
    engine, formats, needs = _engine(bundle, profile, args.engine)
    # Without a choice, what the engine would take by itself.
    precisions = tuple(args.precision) or precisions_of(find_engine(engine), bundle.manifest.artifacts)[:1]
    part = restrict(bundle.manifest, Selection(formats, precisions, ()))
    plan = ImagePlan(
        profile=profile,
        bundle=bundle.manifest.name,
        content_id=bundle.content_id,
        engine=engine,
        libraries=tuple(requirements().values()),
        engine_needs=needs,
        source=args.source,
        app=args.app is not None,
        base=args.base,
        build_base=args.build_base,
        tag=args.tag,
    )
    return plan, part


def _engine(
    bundle: Bundle, profile: Profile, asked: str | None
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the engine's name, which of its formats the bundle has, and its requirements.

    Raises:
        EngineMissing: There is no engine of this name.
        RecipeError: The bundle has nothing for it, or it has no wheel for the board.
    """
    from boardfit.boards.cross.context import engine_packages, engines_for
    from boardfit.cli.needs import engine_requirements
    from boardfit.errors import RecipeError
    from boardfit.runtime.engines import find_engine

    have = sorted({artifact.format for artifact in bundle.manifest.artifacts})
    able = engines_for(profile)
    for name in [asked] if asked else able:
        found = find_engine(name)
        formats = tuple(each for each in found.formats if each in have)
        base = name.partition(":")[0]
        if not formats:
            continue
        if packages := engine_packages(name):
            return name, formats, packages
        libraries: Sequence[str] = getattr(found, "libraries", ())
        if base not in able and libraries:
            raise RecipeError(
                f"there is no wheel of engine {name!r} for {profile.title}: take one of {', '.join(able)}"
            )
        if ":" in name:
            raise RecipeError(f"no image is made for the variant {name!r}: take {base!r}, or build your own")
        return name, formats, tuple(engine_requirements(base).values())
    tried = f"engine {asked!r} runs" if asked else f"{profile.title} takes {', '.join(able)}, which run"
    formats = tuple(
        dict.fromkeys(f for name in ([asked] if asked else able) for f in find_engine(name).formats)
    )
    raise RecipeError(
        f"{tried} {', '.join(formats)}, but the bundle has {', '.join(have)} only: choose another engine, or "
        "build the bundle with --formats"
    )


def _require_no_film(args: argparse.Namespace) -> None:
    """Refuse a file or folder as the source; an app or a base of the user's own may have some."""
    from boardfit.errors import ImageError
    from boardfit.runtime.camera.address import is_file

    if args.app or args.base or args.source.startswith("env:"):
        return
    if is_file(args.source):
        raise ImageError(
            f"{args.source!r} is a file or folder, and the image has none of yours: expected a camera's "
            "number, an address or env:NAME"
        )


def _notes(plan: ImagePlan, args: argparse.Namespace) -> Iterator[str]:
    """Yield what is easily overlooked of a board with a GPU."""
    from boardfit.boards.cross.texts import NVIDIA_WHEEL

    best = next((each.name for each in plan.profile.engines), "")
    if not args.engine and ":" in best:
        yield (
            f"{plan.engine} runs on the processor; the GPU takes --engine {best} (see: boardfit boards "
            f"{plan.profile.name})"
        )
    if plan.dockerfile == "jetson" and not args.wheel and not args.build_arg:
        yield NVIDIA_WHEEL


def _builder(plan: ImagePlan, args: argparse.Namespace) -> Builder:
    """Find what builds, and look ahead for what would stop it."""
    from boardfit.boards.cross.builders import check_base, check_emulator, find_builder
    from boardfit.errors import RecipeError

    for word in args.build_arg:
        if not word.partition("=")[0] or "=" not in word:
            raise RecipeError(f"--build-arg {word}: expected NAME=VALUE")
    builder = find_builder("" if args.build == "any" else args.build)
    if plan.base:
        check_base(builder, plan.base, plan.platform)
    # docker's engine may be elsewhere, and bring an emulator of its own.
    if plan.runs_programs and builder.name != "docker":
        check_emulator(plan.platform)
    return builder


def _build(builder: Builder, plan: ImagePlan, args: argparse.Namespace) -> None:
    from boardfit.boards.cross.builders import build
    from boardfit.errors import ImageError

    try:
        build(
            builder,
            Path(args.out),
            platform=plan.platform,
            tag=plan.image,
            arguments=args.build_arg,
            on_line=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except ImageError as error:
        words = builder.build_words(
            platform=plan.platform, tag=plan.image, folder=args.out, arguments=args.build_arg
        )
        raise ImageError(
            f"{error}; the folder {args.out} is whole, try again: {shlex.join(words)}"
        ) from error
    print(f"built {plan.image} with {builder.name}")


def _write(draft: Path, plan: ImagePlan, bundle: Bundle, part: Manifest, args: argparse.Namespace) -> None:
    """Fill the folder."""
    import shutil
    from dataclasses import replace

    from boardfit.boards.cross.context import context_texts
    from boardfit.boards.remote.package import pack_package
    from boardfit.bundle import open_bundle
    from boardfit.cli.pack import write_part

    if lost := write_part(bundle, part, draft / "model.boardfit"):
        print(lost)
    with open_bundle(draft / "model.boardfit") as packed:
        plan = replace(plan, content_id=packed.content_id)
    (draft / "wheels").mkdir()
    for name, text in context_texts(plan).items():
        (draft / name).write_text(text, "utf-8")
    pack_package(draft / "boardfit.zip")
    for wheel in args.wheel:
        shutil.copy(wheel, draft / "wheels" / Path(wheel).name)
    if args.app:
        shutil.copy(args.app, draft / "app.py")
    if args.requirements:
        shutil.copy(args.requirements, draft / "app.txt")
    # COPY keeps the modes, and who reads these in the image is nobody, whatever this user's umask is.
    for path in (draft / "model.boardfit", draft / "app.py"):
        if path.exists():
            path.chmod(0o644)


def _require_files(args: argparse.Namespace) -> None:
    """Refuse options that name no files, before anything is done."""
    from boardfit.errors import RecipeError

    named: Sequence[tuple[str, str | None]] = (
        ("--app", args.app),
        ("--requirements", args.requirements),
        *(("--wheel", wheel) for wheel in args.wheel),
    )
    for option, path in named:
        if path is not None and not Path(path).is_file():
            raise RecipeError(f"{option} {path}: there is no such file")
    if args.build_arg and not args.build:
        raise RecipeError("--build-arg is for a build: add --build")
    if args.requirements and not args.app:
        raise RecipeError("--requirements is what an app needs: add --app")
    for wheel in args.wheel:
        if not wheel.endswith(".whl"):
            raise RecipeError(f"--wheel {wheel}: expected a file NAME.whl")
