#!/usr/bin/env bash
# Builds ncnn as a static library and the native runner for ARM on this machine.
#
# usage: boards/cross/build_native.sh aarch64|armhf [OUT]
#
# Leaves in OUT (build/cross) ARCH/bin/boardfit-ncnn, ARCH/lib, ARCH/include and ARCH/NOTICES.txt. ncnn's source comes by
# pip, by the version and hash in ncnn.txt. Variables: PYTHON (whose pip is asked), JOBS, LAYERS=all (every layer of ncnn, not
# those of ncnn-layers.txt), NCNN_SDIST (the source package, where there is no network).
set -euo pipefail

die() {
    echo "build_native.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
runner=$here/../../runtime/native
python=${PYTHON:-python3}
case ${1:-} in
aarch64) triple=aarch64-linux-gnu package=arm64 options=() ;;
# Its kernels for bfloat16 ask more registers than ARMv7 has: GCC 12 refuses them ("impossible constraints").
armhf) triple=arm-linux-gnueabihf package=armhf options=(-DNCNN_BF16=OFF) ;;
*) die "no architecture '${1:-}': expected aarch64 or armhf" ;;
esac
arch=$1 out=${2:-build/cross}
for tool in "$triple-g++:crossbuild-essential-$package" cmake:cmake ninja:ninja-build "$python:python3 python3-pip"; do
    command -v "${tool%%:*}" >/dev/null || die "${tool%%:*} is not installed: sudo apt install ${tool#*:}"
done
work=$({ mkdir -p "$out/$arch" && mktemp -d "$out/tmp.XXXXXX"; } 2>/dev/null) ||
    die "cannot write to $out: choose another folder"
trap 'rm -rf "$work"' EXIT
out=$(cd "$out" && pwd)

read -r pin hash <<<"$(sed -n 's/^ncnn==\([^ ]*\) --hash=sha256:/\1 /p' "$here/ncnn.txt")"
source=$out/ncnn-$pin

# pip names the package's date after the day of its build, and its newer resolver refuses it for that; the older one
# warns. That one in turn stumbles over constraints for packages that are not asked for.
fetch() {
    PIP_CONSTRAINT=/dev/null "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary ncnn \
        --use-deprecated=legacy-resolver --require-hashes -r "$here/ncnn.txt" -d "$work" >"$work/log" 2>&1 ||
        die "cannot fetch ncnn $pin ($(grep -m1 ERROR "$work/log" || tail -n1 "$work/log")): with no network, name its" \
            "source package in NCNN_SDIST"
    echo "$work/ncnn-$pin.tar.gz"
}

if [ ! -d "$source" ]; then
    sdist=${NCNN_SDIST:-}
    [ -n "$sdist" ] || sdist=$(fetch)
    [ -r "$sdist" ] || die "cannot read $sdist"
    [ "$(sha256sum <"$sdist")" = "$hash  -" ] || die "$sdist is not ncnn $pin: its SHA-256 is not the one in ncnn.txt"
    mkdir "$work/source"
    tar -xzf "$sdist" -C "$work/source" --strip-components=1
    mv -T "$work/source" "$source" 2>/dev/null || [ -d "$source" ] # another run was faster
fi

if [ "${LAYERS:-}" != all ]; then
    wanted=" $(sed 's/#.*//' "$here/ncnn-layers.txt" | tr '\n' ' ') "
    for layer in $(sed -n 's/^ncnn_add_layer(\([A-Za-z0-9]*\).*/\1/p' "$source/src/CMakeLists.txt"); do
        [[ $wanted == *" $layer "* ]] || options+=("-DWITH_LAYER_${layer,,}=OFF")
    done
fi

# Runs CMake and Ninja; what they say is shown where they fail.
build() {
    local folder=$1
    shift
    if ! { cmake -U 'WITH_LAYER_*' -S "$1" -B "$folder" -G Ninja "${@:2}" -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$out/$arch" \
        -DCMAKE_TOOLCHAIN_FILE="$here/toolchains/$arch.cmake" && ninja -C "$folder" ${JOBS:+-j "$JOBS"} install/strip; } \
        >"$folder.log" 2>&1; then
        tail -n 20 "$folder.log" >&2
        die "building for $arch failed: see $folder.log"
    fi
}

build "$out/$arch/ncnn-build" "$source" -DNCNN_VERSION="${pin##*.}" -DNCNN_BUILD_BENCHMARK=OFF "${options[@]}"
build "$out/$arch/runner-build" "$runner" -Dncnn_DIR="$out/$arch/lib/cmake/ncnn" -DBOARDFIT_STATIC=ON
{
    echo "boardfit-ncnn holds ncnn $pin and, where it was linked statically, the GNU C library (LGPL-2.1), libstdc++ and"
    echo "libgomp (GPL-3 with the GCC runtime library exception). Their terms:"
    cat "$source/LICENSE.txt"
    cat /usr/share/doc/{libc6-dev,libstdc++-*-dev}-"$package"-cross/copyright 2>/dev/null ||
        echo "the toolchain's own are not on the machine that built this"
} >"$work/NOTICES.txt"
mv "$work/NOTICES.txt" "$out/$arch/NOTICES.txt"
echo "$out/$arch/bin/boardfit-ncnn"
