"""Container images for Arm, built and run by buildah in a store of their own below ``build/arm``."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from stand_ins import kit
from stand_ins.roots import CROSS, run_in

# Each change of a source leaves layers behind, which no image has any more.
ROOM_BYTES = 10e9
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Store:
    """Images and containers of ours; ``close`` keeps the images, but no container and nothing mounted."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or kit.KEPT / "images").resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        # Whoever closes a store cleans it up: one at a time.
        self._lock = (self.folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.words = ["buildah", "--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run"]

        used = subprocess.run(["du", "-sxB1", str(self.folder)], capture_output=True, text=True).stdout
        if used and int(used.split()[0]) > ROOM_BYTES:
            self.buildah("rmi", "--prune", "--force")

    def buildah(self, *words: str, timeout_s: float = 900.0) -> str:
        """Run buildah, and return what it prints.

        Raises:
            RuntimeError: It failed.
        """
        done = subprocess.run(
            [*self.words, *words],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )
        if done.returncode != 0:
            raise RuntimeError(f"buildah {words[0]}: {(done.stdout + done.stderr).strip()[-3000:]}")
        return done.stdout

    def has(self, tag: str) -> bool:
        """Whether an image is in the store."""
        done = subprocess.run([*self.words, "inspect", "--type", "image", tag], capture_output=True)
        return done.returncode == 0

    def base(self, arch: str, packages: Sequence[str] = ()) -> str:
        """Return a Debian base image, made if it is not there or from another script."""
        script = CROSS / "local_base.sh"
        made_from = script.read_bytes() + ",".join(packages).encode()
        tag = f"localhost/boardfit-base:{arch}-{hashlib.sha256(made_from).hexdigest()[:12]}"
        if not self.has(tag):
            words = ["env", f"BUILDAH={' '.join(self.words)}", str(script)]
            words += ["--packages", ",".join(packages)] if packages else []
            done = subprocess.run([*words, arch, tag], capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(done.stderr.strip())
        return tag

    def build(self, context: Path, tag: str, *, platform: str, arguments: Mapping[str, str]) -> str:
        """Build a context's Dockerfile; bases come from this store alone."""
        words = ["bud", "--format", "docker", "--isolation", "chroot", "--network", "host"]
        words += ["--pull-never", "--layers", "--force-rm"]
        words += ["--platform", platform, "-t", tag]
        words += [word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))]
        if CERTIFICATES.exists():
            # A network that has a certificate of its own: the machine's bundle, for the build alone.
            words += ["-v", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        self.buildah(*words, str(context))
        return tag

    def run(
        self,
        tag: str,
        words: Sequence[str],
        *,
        cpuinfo: Path,
        mounts: Mapping[str, Path] | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 900.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a new container of an image, on the processor that ``cpuinfo`` is named after.

        Args:
            tag: Of the image; its variables and its user hold, and its root file system is read-only.
            words: The program and its arguments.
            cpuinfo: Written by ``write_cpuinfo``.
            mounts: Folders by the path where they are seen inside.
            env: Further variables.
            timeout_s: Of the whole run.
        """
        name = f"boardfit-{uuid.uuid4().hex[:12]}"
        self.buildah("from", "--pull-never", "--name", name, tag)
        try:
            config = json.loads(self.buildah("inspect", "--type", "container", name))["OCIv1"]["config"]
            variables = dict(each.split("=", 1) for each in config.get("Env", []))
            # Not "buildah run": it shows the machine's own /proc/cpuinfo, at which engines crash.
            return run_in(
                Path(self.buildah("mount", name).strip()),
                words,
                cpuinfo=cpuinfo,
                mounts=mounts,
                env={**variables, **(env or {})},
                user=config.get("User") or "0:0",
                timeout_s=timeout_s,
            )
        finally:
            self.buildah("rm", name)

    def close(self) -> None:
        """Remove containers, and unmount what the store's driver leaves mounted."""
        with contextlib.suppress(RuntimeError):
            self.buildah("rm", "--all")
        below = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for path in sorted((each for each in below if each.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "-l", path], capture_output=True)
        self._lock.close()
