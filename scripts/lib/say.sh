# shellcheck shell=bash
# What the scripts say: parts with their expected time and their own duration, plain failures.

PART=
PART_START=0
PARTS=()

bold() {
    if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi
}

# 75 -> 1m15s
minutes() {
    local s=$1
    if ((s < 60)); then echo "${s}s"; else printf '%dm%02ds\n' $((s / 60)) $((s % 60)); fi
}

# part TITLE EXPECTED: begins a part and ends the one before.
part() {
    part_done
    PART=$1
    PART_START=$SECONDS
    bold "==> $1 (expected: $2)"
}

part_done() {
    [[ -n $PART ]] || return 0
    local took
    took=$(minutes $((SECONDS - PART_START)))
    PARTS+=("$(printf '%8s  %s' "$took" "$PART")")
    echo "    took $took"
    PART=
}

# All parts with their times.
part_list() {
    part_done
    bold "Time of each part:"
    printf '%s\n' "${PARTS[@]}" "$(printf '%8s  in all' "$(minutes $SECONDS)")"
}

# die WHAT [NEXT...]: ends with a sentence, and what to do about it.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    local next
    for next in "$@"; do printf '  next: %s\n' "$next" >&2; done
    exit 1
}

# Runs a command as root. The path is kept: Go may be installed anywhere.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- env "PATH=$PATH" "$@"
    else
        die "this needs root: $*" "run this as root, or install sudo"
    fi
}
