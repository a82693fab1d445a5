"""A bundle's container images: bytes by layer, time to the first answer, and one result from two builders.

The context that "boardfit image" writes is built for arm64 and for this machine, by buildah and by the docker
client against podman's socket, on Debian bases that are made here without a registry. Times are of this
machine's own kind: nothing for arm64 is run.

Needs root, Debian's buildah, podman, runc and mmdebstrap, the docker client, and the network for packages.

Usage: python benchmarks/evidence/images.py WORK BUNDLE PHOTO [--engine litert] [--runs 20]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from boardfit.boards.cross.context import shipped
from boardfit.cli import main as boardfit
from boardfit.timing import machine_name

LOCAL_BASE = Path(__file__).resolve().parents[2] / "boards" / "cross" / "local_base.sh"
BOARDS = {"arm64": "generic-aarch64", "amd64": "generic-x86-64"}
MODEL = "/opt/boardfit/model.boardfit"
# Of a virtual machine without systemd and with hybrid cgroups; a usual one needs none of it.
CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Workshop:
    """Images and containers in a store of their own below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "containers.conf").write_text(CONTAINERS)
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
        )
        os.environ["CONTAINERS_CONF"] = f"{folder}/containers.conf"
        os.environ["CONTAINERS_STORAGE_CONF"] = f"{folder}/storage.conf"
        os.environ["BUILDAH_ISOLATION"] = "chroot"

    def run(self, tool: str, *words: str) -> str:
        """Run buildah or podman on the store, and return what it prints."""
        done = subprocess.run([tool, *words], capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            sys.exit(f"{tool} {shlex.join(words)}: {(done.stderr or done.stdout)[-2000:]}")
        return done.stdout

    def base(self, arch: str, packages: str = "") -> str:
        """Return a Debian base, made if it is not there yet."""
        tag = f"localhost/evidence-{arch}{'-' * bool(packages)}{packages}:bookworm"
        look = ["buildah", "inspect", "--type", "image", tag]
        if subprocess.run(look, capture_output=True).returncode != 0:
            words = ["sh", str(LOCAL_BASE), *(["--packages", packages] if packages else []), arch, tag]
            subprocess.run(words, check=True)
        return tag

    @contextlib.contextmanager
    def docker_host(self) -> Iterator[None]:
        """Serve docker's interface by podman while the docker client is used."""
        socket = f"unix://{self.folder}/docker.sock"
        serving = subprocess.Popen(["podman", "system", "service", "-t", "0", socket])
        os.environ.update(DOCKER_HOST=socket, DOCKER_BUILDKIT="0")
        try:
            for _ in range(100):
                if subprocess.run(["docker", "version"], capture_output=True).returncode == 0:
                    break
                time.sleep(0.1)
            yield
        finally:
            serving.terminate()
            serving.wait()

    @contextlib.contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Yield an image's root folder."""
        name = self.run("buildah", "from", "--pull-never", image).strip()
        try:
            yield Path(self.run("buildah", "mount", name).strip())
        finally:
            self.run("buildah", "umount", name)
            self.run("buildah", "rm", name)


def wheels(shop: Workshop, words: list[str], arch: str) -> list[str]:
    """Fetch the wheels of a context as its README says, so that every builder installs the same ones."""
    folder = shop.folder / f"wheels-{arch}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=shop.folder) as work:
            context = Path(work) / "context"
            assert quiet_boardfit([*words, "-o", str(context)]) == 0
            readme = (context / "README.md").read_text()
            found = re.search(
                r"^python3 -m pip download .*?-r engine\.txt$", readme, re.MULTILINE | re.DOTALL
            )
            assert found is not None
            fetch = shlex.split(found[0].replace("\\\n", " "))
            subprocess.run([sys.executable, *fetch[1:], "--quiet"], cwd=context, check=True)
            (context / "wheels").rename(folder)
    return [str(path) for path in sorted(folder.glob("*.whl"))]


def image_words(shop: Workshop, bundle: str, engine: str, arch: str) -> list[str]:
    """Return the command that a user types, without where to, on the bases that are made here."""
    words = ["image", bundle, "--board", BOARDS[arch], "--engine", engine, "--base", shop.base(arch)]
    return [*words, "--build-base", shop.base(native_arch(), "python3-pip")]


def build(shop: Workshop, tool: str, bundle: str, engine: str, arch: str) -> str:
    """Build as a user does, and return the image's name."""
    words = image_words(shop, bundle, engine, arch)
    tag = f"localhost/evidence:{tool}-{engine}-{arch}"
    given = ["--wheel", *wheels(shop, words, arch), "--build-arg", "PIP_NO_INDEX=1", "--tag", tag]
    with tempfile.TemporaryDirectory(dir=shop.folder) as work:
        began = time.monotonic()
        if quiet_boardfit([*words, *given, "--build", tool, "-o", f"{work}/context"]) != 0:
            sys.exit(f"{tool} could not build {tag}")
    print(f"  built by {tool} in {time.monotonic() - began:.0f} s, with the wheels at hand", flush=True)
    return tag


def native_arch() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def quiet_boardfit(words: Sequence[str]) -> int:
    """Run a command of ours; of what it says, only an error is shown."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = boardfit(words)
    if status != 0:
        print(f"    {said.getvalue().strip().splitlines()[-1]}", flush=True)
    return status


def spoil(shop: Workshop, bundle: str, engine: str) -> bool:
    """Build what cannot be built; return whether each was told in time, and nothing was left behind."""
    other = next(arch for arch in BOARDS if arch != native_arch())
    wrong = mislabelled(shop, shop.base(native_arch()), other)
    good = image_words(shop, bundle, engine, other)
    faults = {
        "a base of another processor, made here": [*good, "--base", shop.base(native_arch())],
        "a base that says it is for one processor, and is for another": [*good, "--base", wrong],
        "no network in the middle": [*good, "--build-arg", "PIP_INDEX_URL=http://127.0.0.1:9/simple"],
    }
    before, clean = named_images(shop), True
    for fault, words in faults.items():
        print(f"  {fault}:")
        with tempfile.TemporaryDirectory(dir=shop.folder) as work:
            began = time.monotonic()
            given = ["--tag", "localhost/never", "--build", "buildah", "-o", f"{work}/context"]
            failed = quiet_boardfit([*words, *given]) == 1
        left = shop.run("buildah", "containers", "--quiet").split()
        clean &= failed and not left and named_images(shop) == before
        print(f"    after {time.monotonic() - began:.1f} s; containers left: {len(left)}", flush=True)
    return clean


def mislabelled(shop: Workshop, base: str, arch: str) -> str:
    """Return an image of a base's files that says it is of another architecture."""
    name = shop.run("buildah", "from", "--pull-never", base).strip()
    shop.run("buildah", "config", "--arch", arch, name)
    shop.run("buildah", "commit", "--quiet", "--rm", name, "localhost/evidence:mislabelled")
    return "localhost/evidence:mislabelled"


def named_images(shop: Workshop) -> set[str]:
    told = shop.run("buildah", "images", "--format", "{{.Name}}:{{.Tag}}").splitlines()
    return {name for name in told if not name.startswith("<none>")}


def layers(shop: Workshop, image: str) -> list[tuple[str, int]]:
    """Return what made each layer, and its bytes as a registry keeps them (gzip)."""
    out = shop.folder / "oci"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    shop.run("buildah", "push", "--format", "oci", image, f"oci:{out}:image")
    blobs = out / "blobs" / "sha256"
    index = json.loads((out / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"].partition(":")[2]).read_text())
    sizes = [layer["size"] for layer in manifest["layers"]]
    copied = re.findall(r"^COPY (.*)$", shipped("runtime.Dockerfile").rpartition("\nFROM ")[2], re.M)
    made = [*(f"base, layer {number + 1}" for number in range(len(sizes) - len(copied))), *copied]
    return list(zip(made, sizes, strict=True))


def contents(root: Path) -> dict[str, str]:
    """Return digests of what we put into an image.

    Of compiled files only the names: they hold references in an order that differs from run to run.
    """
    ours = ("opt/boardfit", "usr/local/bin", "usr/share/doc/boardfit")
    found = {}
    for folder in ours:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[str(path.relative_to(root))] = f"{path.stat().st_mode:o} {digest}"
            elif path.suffix == ".pyc":
                found[str(path.relative_to(root))] = "compiled"
    return found


def configuration(shop: Workshop, image: str) -> dict[str, object]:
    told = json.loads(shop.run("buildah", "inspect", "--type", "image", image))["Docker"]
    config = told["config"]
    names = ("User", "Cmd", "Entrypoint", "Healthcheck", "Env")
    return {"architecture": told["architecture"], **{name: config.get(name) for name in names}}


def container_words(image: str, photo: Path, command: Sequence[str]) -> list[str]:
    """Return the words that run an image as compose.yaml does: nobody, nothing to write to, no rights."""
    words = [
        "podman",
        "run",
        "--rm",
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs",
        "/tmp",
    ]
    words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
    return [*words, "-v", f"{photo.resolve()}:/photo{photo.suffix}:ro", image, *command]


def answer(image: str, photo: Path) -> dict[str, Any]:
    """Return the answer to one photograph, without its times."""
    words = ["boardfit", "run", MODEL, f"/photo{photo.suffix}", "--json", "--top", "5"]
    said = subprocess.run(container_words(image, photo, words), capture_output=True, text=True)
    if said.returncode != 0:
        sys.exit(said.stderr)
    found = json.loads(said.stdout.splitlines()[0])
    del found["timings"]
    return dict(found)


def first_answer_s(image: str, photo: Path) -> float:
    """Return the seconds from typing "run" to the first line of answers."""
    words = ["boardfit", "run", MODEL, f"/photo{photo.suffix}", "--json"]
    began = time.monotonic()
    with subprocess.Popen(
        container_words(image, photo, words),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        took = time.monotonic() - began
        running.stdout.read()
    assert line.startswith("{"), line
    return took


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("bundle")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--engine", default="litert")
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args(argv)
    shop = Workshop(asked.work.resolve())
    print(f"{machine_name()}; {shop.run('buildah', '--version').strip()}, engine {asked.engine}", flush=True)
    same = spoil(shop, asked.bundle, asked.engine)
    for arch in ("arm64", native_arch()):
        print(f"linux/{arch}")
        image, other = built_twice(shop, asked.bundle, asked.engine, arch)
        same &= is_same(shop, image, other)
        total = 0
        for made, size_bytes in layers(shop, image):
            total += size_bytes
            print(f"  {size_bytes / 1e6:7.1f} MB  {made}")
        print(f"  {total / 1e6:7.1f} MB  in all, compressed (gzip)", flush=True)
    one, two = answer(image, asked.photo), answer(other, asked.photo)
    same &= one == two
    top = ", ".join(f"{each['label']} {each['score']:.3f}" for each in one["top"][:3])
    print(f"  answer {top}: {'equal to every digit' if one == two else 'NOT EQUAL'} in both")
    taken = sorted(first_answer_s(image, asked.photo) for _ in range(asked.runs))
    print(
        f"  from podman run to the first answer, as nobody with a read-only root: median "
        f"{statistics.median(taken):.2f} s, slowest {taken[-1]:.2f} s of {asked.runs}"
    )
    return 0 if same else 1


def built_twice(shop: Workshop, bundle: str, engine: str, arch: str) -> tuple[str, str]:
    """Build with buildah, and with the docker client; return the names of both images."""
    image = build(shop, "buildah", bundle, engine, arch)
    with shop.docker_host():
        return image, build(shop, "docker", bundle, engine, arch)


def is_same(shop: Workshop, image: str, other: str) -> bool:
    """Print and return whether two images hold the same and run the same."""
    with shop.mounted(image) as one, shop.mounted(other) as two:
        files = contents(one), contents(two)
    same = files[0] == files[1] and configuration(shop, image) == configuration(shop, other)
    print(f"  {len(files[0])} files and the configuration: {'equal' if same else 'NOT EQUAL'} in both")
    return same


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
