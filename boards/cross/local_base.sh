#!/bin/sh
# A Debian base image for arm64, armhf or amd64 from Debian's packages alone: no registry, and no emulation, since
# packages are unpacked and none of their scripts is run. Needs mmdebstrap, root, and for an image buildah.
#
#   local_base.sh arm64 localhost/debian-arm64:bookworm                      an image in buildah's store
#   local_base.sh --packages python3-numpy,python3-opencv armhf TAG          with more packages
#   local_base.sh --folder DIR arm64                                         the root file system alone
#
# Variables: SUITE (bookworm), BUILDAH (buildah, with its options), MIRROR (that of this machine's apt)
set -eu

SUITE=${SUITE:-bookworm}
BUILDAH=${BUILDAH:-buildah}
# A shell and the tools of a login, Python, and the libraries that engines link to.
PACKAGES=base-files,base-passwd,ca-certificates,dash,bash,coreutils,grep,sed,tar,gzip,findutils,libc-bin,util-linux,login
PACKAGES=$PACKAGES,procps,python3,libgomp1,libstdc++6
# Debian's packages want one that merges /usr or one that says it is merged. No script of either is run here, and only the
# first brings all of Perl.
PACKAGES=$PACKAGES,usr-is-merged

fail() {
    echo "local_base.sh: $*" >&2
    exit 1
}

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

folder=
while [ $# -gt 0 ]; do
    case $1 in
        --packages) [ $# -gt 1 ] || usage; PACKAGES=$PACKAGES,$2; shift 2 ;;
        --folder) [ $# -gt 1 ] || usage; folder=$2; shift 2 ;;
        -*) usage ;;
        *) break ;;
    esac
done
arch=${1-} tag=${2-}
case $arch in
    arm64) triplet=aarch64-linux-gnu config="--arch arm64" ;;
    armhf) triplet=arm-linux-gnueabihf config="--arch arm --variant v7" ;;
    amd64) triplet=x86_64-linux-gnu config="--arch amd64" ;;
    '') usage ;;
    *) fail "no architecture '$arch': arm64, armhf or amd64" ;;
esac
[ -n "$folder$tag" ] || usage
[ "$(id -u)" -eq 0 ] || fail "only root may unpack a root file system: sudo $0 ..."
command -v mmdebstrap >/dev/null || fail "apt-get install mmdebstrap"
[ -z "$tag" ] || command -v "${BUILDAH%% *}" >/dev/null || fail "apt-get install buildah"
[ -z "$folder" ] || [ ! -e "$folder" ] || fail "$folder is there already"

work=$(mktemp -d "${TMPDIR:-/var/tmp}/boardfit-base-XXXXXX")
[ -z "$folder" ] || { rmdir "$work"; mkdir -p "$(dirname "$folder")"; work=$(mktemp -d "$folder.XXXXXX"); }
container=
trap 'rm -rf "$work"; [ -z "$container" ] || $BUILDAH rm "$container" >/dev/null' EXIT
trap 'exit 1' INT TERM
root=$work/root

# The index of security updates for armhf has been out of step with its mirror: without it then.
unpack() {
    rm -rf "$root"
    mmdebstrap --quiet --variant=extract --arch="$arch" --include="$PACKAGES" "$SUITE" "$root" "$@" >"$work/said" 2>&1
}
mirror() {
    command -v apt-get >/dev/null || return
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $SUITE" | sed -n 1p
}
unpack || unpack "deb ${MIRROR:-$(mirror)} $SUITE main" || fail "$(grep -m 1 '^E:' "$work/said" || tail -n 1 "$work/said")"

# What the scripts of the packages would have done.
for name in passwd group; do
    cp "$root/usr/share/base-passwd/$name.master" "$root/etc/$name"
done
printf '/bin/sh\n/bin/bash\n' >"$root/etc/shells"
find "$root/usr/share/ca-certificates" -name '*.crt' -exec cat {} + >"$root/etc/ssl/certs/ca-certificates.crt"
for link in libblas.so.3=blas liblapack.so.3=lapack; do
    name=${link%%=*}
    [ ! -e "$root/usr/lib/$triplet/${link#*=}/$name" ] || ln -sf "${link#*=}/$name" "$root/usr/lib/$triplet/$name"
done
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*

# What is for people who sit at the machine, as Debian's slim images leave it out; the copyright of each package stays.
rm -rf "$root/usr/share/man" "$root/usr/share/info" "$root/usr/share/lintian" "$root/usr/share/bash-completion"
rm -rf "$root"/usr/share/locale/*/LC_MESSAGES
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -xtype l -delete
find "$root/usr/share/doc" "$root/usr/share/locale" -depth -type d -empty -delete

if [ -n "$folder" ]; then
    mv "$root" "$folder"
else
    container=$($BUILDAH from scratch)
    $BUILDAH add -q "$container" "$root" / >/dev/null
    # shellcheck disable=SC2086 # words
    $BUILDAH config --os linux $config --cmd python3 --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "$container"
    $BUILDAH commit -q "$container" "$tag" >/dev/null
fi
