# shellcheck shell=bash
# Machines behind the emulated AWS, for scripts/aws-emulator: what they need, how their runner is started, and how all of it goes.
# Sourced. Uses that script's CLOUD, CACHE, STATES and PORT.

# What has to be here. Names what is missing, each with its Debian package.
machines_possible() {
    local pair missing=()
    ((EUID == 0)) || die "machines need root: containers with networks and disks of their own are made" "run it with sudo"
    for pair in podman:podman mmdebstrap:mmdebstrap ip:iproute2 nft:nftables losetup:mount nsenter:util-linux; do
        command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [[ ${#missing[@]} == 0 ]] || die "machines need ${missing[*]}" "on Debian: apt-get install ${missing[*]}"
}

# run_machines VERB DIRECTORY [ARGUMENT]
run_machines() {
    local python
    python=$(cat "${2%/machines}/venv" 2>/dev/null)/bin/python
    [[ -x $python ]] || python=$(find_python) || no_python
    PYTHONPATH=$CLOUD "$python" -B -m machines "$1" "$PORT" "${@:2}"
}

# What all machines on this host share: a master takes 32 inotify instances and a minion 14, and Debian allows 128 in all.
INOTIFY_INSTANCES=1024

# Raises that limit until the next boot, if it is smaller.
raise_inotify() {
    local file=/proc/sys/fs/inotify/max_user_instances
    (($(cat "$file") < INOTIFY_INSTANCES)) || return 0
    echo "$INOTIFY_INSTANCES" >"$file" || die "fs.inotify.max_user_instances is $(cat "$file"), too few for machines, and can't be raised" \
        "sysctl -w fs.inotify.max_user_instances=$INOTIFY_INSTANCES"
    echo "raised fs.inotify.max_user_instances to $INOTIFY_INSTANCES until the next boot" >&2
}

# Before the emulator: its machines' image, and the link by whose address the API is reached.
prepare_machines() {
    local dir=$1
    raise_inotify
    (umask 077 && mkdir -p "$dir/instances" "$dir/volumes")
    "$CLOUD/machine-image/build" "$CACHE" >"$dir/image" || return
    run_machines link "$dir" >"$dir/link"
}

# The host's address, and the range that it is of.
machines_host() {
    cut -d ' ' -f 1 "$STATES/$PORT/machines/link"
}

machines_range() {
    cut -d ' ' -f 2 "$STATES/$PORT/machines/link"
}

# Behind the emulator: the runner, begun anew if it ends before the emulator does.
start_runner() {
    local dir=$STATES/$PORT/machines pid
    # shellcheck disable=SC2016 # It is the inner shell that reads them.
    setsid bash -c '
        while [[ -e /proc/$1 ]]; do
            "${@:2}"
            sleep 1
        done' bash "$(cut -d ' ' -f 1 "$STATES/$PORT/pid")" \
        env PYTHONPATH="$CLOUD" "$(cat "$STATES/$PORT/venv")/bin/python" -B -m machines run "$PORT" "$dir" "$(cat "$dir/image")" \
        >"$dir/log" 2>&1 </dev/null 9>&- &
    pid=$!
    echo "$pid $(started_at "$pid")" >"$dir/pid"
}

# Everything of the machines of this port, whatever became of their runner.
end_machines() {
    local dir=$STATES/$PORT/machines pid since
    [[ -d $dir ]] || return 0
    if read -r pid since 2>/dev/null <"$dir/pid" && [[ $(started_at "$pid") == "$since" ]]; then
        kill -KILL -- "-$pid" 2>/dev/null || true
        while [[ $(started_at "$pid") == "$since" ]]; do sleep 0.1; done
    fi
    run_machines remove "$dir"
}
