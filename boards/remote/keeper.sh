# Keeps a private folder on the board for as long as the other end is there, then removes it with all that runs
# in it. Comes through standard input, behind a line that sets token, need_kb and patience_s; behind it come
# board.sh, and then words, one a line. Plain POSIX shell: dash, bash, busybox and mksh all read it.
trap '' HUP PIPE
umask 077
LC_ALL=C
export LC_ALL

# Folders whose keeper is gone: the board was rebooted, or somebody killed it.
sweep() {
    for left in "$1"/boardfit-work-????????????????-*; do
        [ -d "$left" ] && [ ! -h "$left" ] && [ -O "$left" ] || continue
        pid=${left##*-}
        if kill -0 "$pid" 2>/dev/null; then
            [ -r "/proc/$pid/cmdline" ] || continue
            grep -q boardfit-keeper "/proc/$pid/cmdline" && continue
        fi
        rm -rf "$left"
    done
}

free_kb() {
    df -Pk "$1" 2>/dev/null | {
        read -r skip
        read -r skip skip skip free skip
        echo "${free:--1}"
    }
}

# A place is good if we may write there and a program may run from there: libraries are mapped from it.
try() {
    case $1 in /*) ;; *) return 1 ;; esac
    work=${1%/}/boardfit-work-$token-$$
    mkdir "$work" 2>/dev/null || return 1
    shell=$(command -v sh)
    # busybox may call it one of its own and name no path.
    case $shell in /*) ;; *) shell=/bin/sh ;; esac
    printf '#!%s\n' "$shell" >"$work/probe" 2>/dev/null && chmod 700 "$work/probe" &&
        "$work/probe" 2>/dev/null && rm "$work/probe" && return 0
    rm -rf "$work"
    return 1
}

choose() {
    for least_kb in "$need_kb" -1; do
        # /tmp comes late: it is often memory, which a benchmark is to measure, not to lose.
        for place in "$TMPDIR" /var/tmp "$HOME" /data/local/tmp /tmp; do
            [ -d "$place" ] && [ "$(free_kb "$place")" -ge "$least_kb" ] && try "$place" && return 0
        done
    done
    return 1
}

stop() {
    read -r pid 2>/dev/null <"$1" || return 0
    kill -KILL "-$pid" 2>/dev/null
    kill -KILL "$pid" 2>/dev/null
}

end() {
    [ -n "$dog" ] && kill "$dog" 2>/dev/null
    dog=
    tries=0
    while [ -e "$work" ] && [ "$tries" -lt 30 ]; do
        for each in "$work"/.boardfit/running/*; do
            [ -e "$each" ] && stop "$each"
        done
        rm -rf "$work" 2>/dev/null
        [ -e "$work" ] && sleep 1
        tries=$((tries + 1))
    done
}

# A link that dies without a word leaves the keeper reading for ever: this one looks at the clock.
watch() {
    trap 'kill "$nap" 2>/dev/null; exit 0' TERM
    last=
    while :; do
        sleep "$patience_s" &
        nap=$!
        wait "$nap"
        [ -d "$work" ] || exit 0
        now=
        read -r now 2>/dev/null <"$work/.boardfit/beat"
        [ "$now" = "$last" ] && break
        last=$now
    done
    dog=
    kill -KILL "$$"
    end
}

keep() {
    for place in "$TMPDIR" /var/tmp "$HOME" /data/local/tmp /tmp; do
        [ -d "$place" ] && sweep "${place%/}"
    done
    if ! choose; then
        work=
        echo "boardfit no-place"
        exit 1
    fi
    mkdir "$work/.boardfit" "$work/.boardfit/running" "$work/tmp"
    echo 0 >"$work/.boardfit/beat"
    while IFS= read -r line && [ "$line" != boardfit-end ]; do
        printf '%s\n' "$line"
    done >"$work/.boardfit/board"
    watch </dev/null >/dev/null 2>&1 &
    dog=$!
    echo "boardfit ready $(free_kb "$work") $(uname -m) $work"
    while read -r word rest; do
        case $word in
        beat)
            echo "$rest" >"$work/.boardfit/beat"
            echo "boardfit beat $rest"
            ;;
        stop) stop "$work/.boardfit/running/$rest" ;;
        bye) break ;;
        esac
    done
    end
    if [ -e "$work" ]; then echo "boardfit left $work"; else echo "boardfit gone"; fi
}

dog=
work=
trap end EXIT
trap 'exit 1' TERM INT
# The last line: of a script that was cut off on its way nothing runs.
keep
