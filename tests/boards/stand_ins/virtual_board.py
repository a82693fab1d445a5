"""A whole arm64 board in qemu: Debian's kernel, ssh, a V4L2 camera; its times are times of an emulator."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from stand_ins.roots import make_root

VIRTUAL = ("linux-image-arm64", "busybox-static", "kmod", "iproute2", "mount", "dropbear-bin")
BOOT_MODULES = (
    *("virtio_blk", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_mmio"),
    *("crc16", "crc32c_generic", "mbcache", "jbd2", "ext4"),
)

INITIAL = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
for module in $(/bin/busybox cat /order); do /bin/busybox insmod /modules/$module; done
/bin/busybox sleep 1
/bin/busybox mount -t ext4 /dev/vda /new
exec /bin/busybox switch_root /new /board-init
"""

INIT = """#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
modprobe virtio_net
modprobe vivid n_devs=1 node_types=0x1
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
dropbearkey -t ed25519 -f /run/host-key >/dev/null 2>&1
while :; do dropbear -F -E -r /run/host-key -p 22; done
"""


class VirtualBoard:
    """A whole arm64 board in qemu, with ``ssh`` in ``bin`` that knows it as ``board``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")]
        subprocess.run(words, check=True)
        root = make_root(folder / "root", VIRTUAL)
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(folder / "key.pub", root / "root/.ssh/authorized_keys")
        init = root / "board-init"
        init.write_text(INIT)
        init.chmod(0o755)
        (self.version,) = (path.name for path in (root / "lib/modules").iterdir())
        subprocess.run(["depmod", "-b", str(root), self.version], check=True)
        self._make_initrd(root)
        words = ["mke2fs", "-q", "-m", "0", "-t", "ext4", "-d", str(root), str(folder / "disk"), "2200M"]
        subprocess.run(words, check=True, capture_output=True)
        shutil.copyfile(root / f"boot/vmlinuz-{self.version}", folder / "kernel")
        shutil.rmtree(root)

    def start(self, *, keep: bool = False) -> None:
        """Boot, and wait until it answers. What it writes stays for the next start if ``keep``."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        snapshot = "off" if keep else "on"
        words = ["qemu-system-aarch64", "-M", "virt", "-accel", "tcg", "-cpu", "cortex-a72", "-smp", "2"]
        words += ["-m", "1536", "-nographic", "-no-reboot", "-kernel", str(self.folder / "kernel")]
        words += ["-initrd", str(self.folder / "initrd"), "-append", "console=ttyAMA0 quiet panic=-1"]
        words += ["-drive", f"file={self.folder}/disk,format=raw,if=virtio,snapshot={snapshot}"]
        words += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
        words += ["-device", "virtio-net-pci,netdev=net,romfile="]
        self._console = (self.folder / "console").open("wb")
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=self._console, stderr=subprocess.STDOUT
        )
        self._write_client(port)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._process.poll() is None:
            if subprocess.run([str(self.bin / "ssh"), "board", "true"], capture_output=True).returncode == 0:
                return
            time.sleep(1)
        self.stop()
        raise RuntimeError(
            f"the virtual board does not answer: {(self.folder / 'console').read_text()[-2000:]}"
        )

    def shell(self, command: str) -> str:
        """Run a command on it, apart from what is tested."""
        words = [str(self.bin / "ssh"), "board", command]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def stop(self) -> None:
        """Pull the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._console.close()

    def _write_client(self, port: int) -> None:
        (self.folder / "known").unlink(missing_ok=True)
        (self.folder / "client").write_text(
            f"Host board\n HostName 127.0.0.1\n Port {port}\n User root\n IdentityFile {self.folder}/key\n"
            f" IdentitiesOnly yes\n BatchMode yes\n ConnectTimeout 5\n HostKeyAlias board\n"
            f" UserKnownHostsFile {self.folder}/known\n StrictHostKeyChecking accept-new\n LogLevel ERROR\n"
        )
        self.bin.mkdir(exist_ok=True)
        (self.bin / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {self.folder}/client "$@"\n')
        (self.bin / "ssh").chmod(0o755)

    def _make_initrd(self, root: Path) -> None:
        initial = self.folder / "initial"
        for name in ("bin", "dev", "proc", "new", "modules"):
            (initial / name).mkdir(parents=True)
        shutil.copyfile(
            next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists()),
            initial / "bin/busybox",
        )
        (initial / "bin/busybox").chmod(0o755)
        (initial / "init").write_text(INITIAL)
        (initial / "init").chmod(0o755)
        order = []
        for name in BOOT_MODULES:
            for path in (root / "lib/modules" / self.version).rglob(f"{name}.ko"):
                shutil.copyfile(path, initial / "modules" / path.name)
                order.append(path.name)
        (initial / "order").write_text(" ".join(order))
        names = "\n".join(str(path.relative_to(initial)) for path in sorted(initial.rglob("*")))
        packed = subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"],
            cwd=initial,
            input=names.encode(),
            capture_output=True,
            check=True,
        )
        (self.folder / "initrd").write_bytes(packed.stdout)
        shutil.rmtree(initial)


@contextlib.contextmanager
def on_path(folder: Path):
    """Programs of this folder come first."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
