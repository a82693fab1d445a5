#!/bin/sh
# What a machine with another processor needs to run, build for and boot Arm: Debian's packages, and binfmt_misc.
#
#   emulation.sh programs images      says in one line what is missing and what to type; exit status 1 if anything is
#   emulation.sh --install programs   installs it (Debian and Ubuntu, as root)
#
#   programs   arm64 and armhf programs and root file systems     qemu-user-static, mmdebstrap
#   images     container images                                   buildah, runc
#   board      a whole virtual board                              qemu-system-arm, e2fsprogs, kmod, cpio, openssh-client
set -eu

MISC=${BINFMT_MISC:-/proc/sys/fs/binfmt_misc}

packages_of() {
    case $1 in
        programs) echo "qemu-aarch64-static=qemu-user-static qemu-arm-static=qemu-user-static update-binfmts=binfmt-support \
mmdebstrap=mmdebstrap unshare=util-linux" ;;
        images) echo "buildah=buildah runc=runc" ;;
        board) echo "qemu-system-aarch64=qemu-system-arm mke2fs=e2fsprogs depmod=kmod cpio=cpio ssh=openssh-client" ;;
        *) echo "emulation.sh: there is no part '$1': programs, images, board" >&2; exit 2 ;;
    esac
}

missing_packages() {
    for part; do
        for pair in $(packages_of "$part"); do
            command -v "${pair%%=*}" >/dev/null 2>&1 || echo "${pair#*=}"
        done
    done | sort -u | tr '\n' ' '
}

# The kernel forgets at each start which interpreter runs which programs. Mounted before the packages come, these register
# themselves; after a restart update-binfmts does it again.
is_registered() {
    for name in qemu-aarch64 qemu-arm; do
        grep -qs '^enabled' "$MISC/$name" || return 1
    done
}

is_root() {
    [ "$(id -u)" -eq 0 ]
}

install_packages() {
    is_root || { echo "only root may install packages and register binfmt_misc" >&2; return 1; }
    [ -e "$MISC/status" ] || mount -t binfmt_misc binfmt_misc "$MISC" 2>/dev/null || {
        echo "the kernel has no binfmt_misc, without which no program for Arm is started" >&2
        return 1
    }
    packages=$(missing_packages "$@")
    if [ -n "$packages" ]; then
        command -v apt-get >/dev/null || { echo "there is no apt-get to install $packages" >&2; return 1; }
        said=$(mktemp)
        # shellcheck disable=SC2086 # words
        { apt-get -q update && DEBIAN_FRONTEND=noninteractive \
            apt-get -qy -o DPkg::Lock::Timeout=600 install --no-install-recommends $packages; } >"$said" 2>&1 || {
            echo "apt-get install $packages failed: $(grep -m 1 '^E:' "$said" || tail -n 1 "$said")" >&2
            rm -f "$said"
            return 1
        }
        rm -f "$said"
    fi
    is_registered || update-binfmts --enable >/dev/null 2>&1 || true
}

install=
[ "${1-}" != --install ] || { install=yes; shift; }
[ $# -gt 0 ] || { echo "usage: emulation.sh [--install] programs|images|board ..." >&2; exit 2; }
for part; do packages_of "$part" >/dev/null; done
[ -z "$install" ] || install_packages "$@" || exit 1

packages=$(missing_packages "$@")
if [ -n "$packages" ]; then
    echo "missing here: apt-get install --no-install-recommends ${packages% } (or: sudo boards/cross/emulation.sh --install $*)"
    exit 1
fi
if ! is_registered; then
    echo "the kernel does not know how to start Arm programs: sudo mount -t binfmt_misc binfmt_misc $MISC;" \
        "sudo update-binfmts --enable"
    exit 1
fi
if ! is_root; then
    echo "only root may make a root file system and mount in it: run this as root"
    exit 1
fi
