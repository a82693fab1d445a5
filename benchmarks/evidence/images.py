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
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from boardfit.boards.cross.builders import Builder
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
        self.store = ["--root", f"{folder}/root", "--runroot", f"{folder}/run"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "containers.conf").write_text(CONTAINERS)
        os.environ["CONTAINERS_CONF"] = f"{folder}/containers.conf"
        os.environ["BUILDAH_ISOLATION"] = "chroot"

    def run(self, tool: str, *words: str) -> str:
        """Run buildah or podman on the store, and return what it prints."""
        done = subprocess.run([tool, *self.store, *words], capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            sys.exit(f"{tool} {shlex.join(words)}: {(done.stderr or done.stdout)[-2000:]}")
        return done.stdout

    def base(self, arch: str, packages: str = "") -> str:
        """Return a Debian base, made if it is not there yet."""
        tag = f"localhost/evidence-{arch}{'-' * bool(packages)}{packages}:bookworm"
        have = subprocess.run(
            ["buildah", *self.store, "inspect", "--type", "image", tag], capture_output=True
        )
        if have.returncode != 0:
            words = [str(LOCAL_BASE), *(["--packages", packages] if packages else []), arch, tag]
            subprocess.run(
                words, check=True, env={**os.environ, "BUILDAH": f"buildah {' '.join(self.store)}"}
            )
        return tag

    @contextlib.contextmanager
    def docker_host(self) -> Iterator[dict[str, str]]:
        """Serve docker's interface by podman, and yield the client's variables."""
        socket = self.folder / "docker.sock"
        serving = subprocess.Popen(
            ["podman", *self.store, "system", "service", "-t", "0", f"unix://{socket}"]
        )
        env = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0"}
        try:
            for _ in range(100):
                if subprocess.run(["docker", "version"], env=env, capture_output=True).returncode == 0:
                    break
                time.sleep(0.1)
            yield env
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


def write_context(shop: Workshop, bundle: str, engine: str, arch: str) -> Path:
    """Write a context with its wheels, so that every builder installs the same ones."""
    out = shop.folder / f"context-{engine}-{arch}"
    if not out.exists():
        words = ["image", bundle, "--board", BOARDS[arch], "--engine", engine, "-o", str(out)]
        assert boardfit(words) == 0
        readme = (out / "README.md").read_text()
        found = re.search(r"^python3 -m pip download .*?-r engine\.txt$", readme, re.MULTILINE | re.DOTALL)
        assert found is not None
        fetch = shlex.split(found[0].replace("\\\n", " "))
        subprocess.run([sys.executable, *fetch[1:], "--quiet"], cwd=out, check=True)
    return out


def arguments(shop: Workshop, arch: str) -> list[str]:
    told = {
        "BASE": shop.base(arch),
        "BUILD_BASE": shop.base(native_arch(), "python3-pip"),
        "PIP_NO_INDEX": "1",
    }
    return [word for name, value in told.items() for word in ("--build-arg", f"{name}={value}")]


def native_arch() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def build(shop: Workshop, tool: str, context: Path, arch: str, env: dict[str, str] | None = None) -> str:
    """Build, and return the image's name."""
    tag = f"localhost/evidence:{tool}-{context.name}"
    words = Builder(tool).build_words(platform=f"linux/{arch}", tag=tag, folder=str(context))
    words[-1:-1] = arguments(shop, arch)
    if tool == "buildah":
        words[1:1] = shop.store
        words[-1:-1] = ["--pull-never"]
    began = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", env=env)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(words)}: {(done.stdout + done.stderr)[-3000:]}")
    print(f"  built by {tool} in {time.monotonic() - began:.0f} s (wheels at hand)", flush=True)
    return tag


def layers(shop: Workshop, image: str) -> list[tuple[str, int]]:
    """Return what made each layer, and its bytes as a registry keeps them (gzip)."""
    out = shop.folder / "oci"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    shop.run("buildah", "push", "--format", "oci", image, f"oci:{out}:image")
    blobs = out / "blobs" / "sha256"
    index = json.loads((out / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"].partition(":")[2]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"].partition(":")[2]).read_text())
    made = [step.get("created_by", "") for step in config["history"] if not step.get("empty_layer")]
    sizes = [layer["size"] for layer in manifest["layers"]]
    if len(made) != len(sizes):
        # One commit for the whole Dockerfile, unless the builder was told to keep its layers.
        made = [f"layer {number}" for number in range(len(sizes))]
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


def container_words(shop: Workshop, image: str, photo: Path, command: Sequence[str]) -> list[str]:
    """Return the words that run an image as compose.yaml does: nobody, nothing to write to, no rights."""
    words = [
        "podman",
        *shop.store,
        "run",
        "--rm",
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs",
        "/tmp",
    ]
    words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
    return [*words, "-v", f"{photo.resolve()}:/photo{photo.suffix}:ro", image, *command]


def answer(shop: Workshop, image: str, photo: Path) -> dict[str, Any]:
    """Return the answer to one photograph, without its times."""
    words = ["boardfit", "run", MODEL, f"/photo{photo.suffix}", "--json", "--top", "5"]
    said = subprocess.run(container_words(shop, image, photo, words), capture_output=True, text=True)
    if said.returncode != 0:
        sys.exit(said.stderr)
    found = json.loads(said.stdout.splitlines()[0])
    del found["timings"]
    return dict(found)


def first_answer_s(shop: Workshop, image: str, photo: Path) -> float:
    """Return the seconds from typing "run" to the first line of answers."""
    words = ["boardfit", "run", MODEL, f"/photo{photo.suffix}", "--json"]
    began = time.monotonic()
    with subprocess.Popen(
        container_words(shop, image, photo, words),
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
    print(f"{machine_name()}; {shop.run('buildah', 'version').splitlines()[0]}, engine {asked.engine}")
    same = True
    for arch in ("arm64", native_arch()):
        print(f"linux/{arch}")
        context = write_context(shop, asked.bundle, asked.engine, arch)
        image = build(shop, "buildah", context, arch)
        with shop.docker_host() as env:
            other = build(shop, "docker", context, arch, env)
        with shop.mounted(image) as one, shop.mounted(other) as two:
            files = contents(one), contents(two)
        equal = files[0] == files[1] and configuration(shop, image) == configuration(shop, other)
        same &= equal
        print(
            f"  {len(files[0])} files and the configuration are {'equal' if equal else 'NOT EQUAL'} in both"
        )
        total = 0
        for made, size_bytes in layers(shop, other):
            total += size_bytes
            print(f"  {size_bytes / 1e6:7.1f} MB  {made[:90]}")
        print(f"  {total / 1e6:7.1f} MB  in all, compressed (gzip)")
    answers = answer(shop, image, asked.photo), answer(shop, other, asked.photo)
    same &= answers[0] == answers[1]
    top = ", ".join(f"{each['label']} {each['score']:.3f}" for each in answers[0]["top"][:3])
    print(f"  answer {top}: {'equal to every digit' if answers[0] == answers[1] else 'NOT EQUAL'} in both")
    taken = sorted(first_answer_s(shop, image, asked.photo) for _ in range(asked.runs))
    print(
        f"  from podman run to the first answer, as nobody with a read-only root: median "
        f"{statistics.median(taken):.2f} s, slowest {taken[-1]:.2f} s of {asked.runs}"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
