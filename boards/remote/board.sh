# What the other end asks for, one word and its arguments; lies in the folder that keeper.sh keeps. Plain POSIX shell.
work=${0%/.boardfit/board}
if [ "$1" != run ]; then
    LC_ALL=C
    export LC_ALL
fi

sha256() {
    if command -v sha256sum >/dev/null 2>&1; then
        set -- "$(sha256sum <"$1")"
    elif command -v python3 >/dev/null 2>&1; then
        set -- "$(python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1")"
    else
        echo "boardfit-fault no-sha256" >&2
        return 1
    fi
    [ -n "$1" ] && echo "${1%% *}"
}

# run TOKEN WORD...: the words, in a session of their own so that all of it can be stopped, and how they ended.
run() {
    token=$1
    shift
    cd "$work" || exit 1
    TMPDIR=$work/tmp
    export TMPDIR
    exec 3<&0
    if command -v setsid >/dev/null 2>&1; then
        setsid "$@" <&3 3<&- &
    else
        "$@" <&3 3<&- &
    fi
    pid=$!
    # The folder is gone if the link was cut just now.
    echo "$pid" 2>/dev/null >".boardfit/running/$token" || kill -KILL "$pid"
    wait "$pid"
    status=$?
    rm -f ".boardfit/running/$token"
    echo "boardfit-finished $token $status" >&2
    exit "$status"
}

# put FILE OFFSET SHA256: standard input into a file, which appears when it is whole.
put() {
    part=$1.boardfit-part
    mkdir -p "$(dirname "$1")" || exit 1
    if [ "$2" = 0 ]; then cat >"$part"; else cat >>"$part"; fi || exit 1
    found=$(sha256 "$part") || exit 1
    if [ "$found" != "$3" ]; then
        echo "boardfit-fault hash" >&2
        exit 1
    fi
    mv -f "$part" "$1"
}

# have FILE: how much of it an interrupted put has left, and its hash.
have() {
    part=$1.boardfit-part
    [ -e "$part" ] || echo "0 -"
    [ -e "$part" ] || exit 0
    found=$(sha256 "$part") || exit 1
    echo "$(wc -c <"$part") $found"
}

# get FILE OFFSET: its size and hash in a line, then its bytes from the offset on.
get() {
    found=$(sha256 "$1") || exit 1
    echo "$(wc -c <"$1") $found"
    tail -c "+$(($2 + 1))" "$1"
}

# unpack TAR FOLDER: the folder appears when it is whole. The archive goes.
unpack() {
    rm -rf "$2.boardfit-part" && mkdir -p "$2.boardfit-part" && tar -xf "$1" -C "$2.boardfit-part" || exit 1
    rm -rf "$1" "$2" && mv "$2.boardfit-part" "$2"
}

# pack FOLDER TAR
pack() {
    tar -cf "$2" -C "$1" .
}

"$@"
