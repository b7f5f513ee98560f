# shellcheck shell=bash
# What both scripts need before anything runs: Debian packages, toolchains, kup itself, the bundle, the node image.
# Everything is asked for first and made only if it is missing.

KUP=${CARGO_TARGET_DIR:-target}/release/kup
[[ $KUP == /* ]] || KUP=$PWD/$KUP

# What the crates' C code is compiled and linked with. (Neither cmake nor perl: aws-lc comes with ready-made assembly.)
# shellcheck disable=SC2034 # The scripts that include this use it.
BUILD_PACKAGES=(gcc libc6-dev pkg-config libssl-dev ca-certificates)
# What building the bundle needs besides: runc is linked with it.
# shellcheck disable=SC2034
BUNDLE_PACKAGES=(libseccomp-dev)
# What machines on this host need: the engine with its network, and what makes the node image.
# shellcheck disable=SC2034
MACHINE_PACKAGES=(iproute2 iptables nftables procps mmdebstrap curl jq)
PODMAN_PACKAGES=(podman runc netavark aardvark-dns)

# Installs those of the packages that are missing.
install_packages() {
    local package missing=()
    if ! command -v apt-get >/dev/null; then
        echo "This is no Debian: nothing is installed. Needed are what Debian calls: $*"
        return
    fi
    for package in "$@"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then
        echo "all of them are there"
        return
    fi
    echo "installing: ${missing[*]}"
    local get=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0)
    # The lists on the machine may be older than what the mirror still has.
    if ! as_root "${get[@]}" install --no-install-recommends "${missing[@]}" </dev/null; then
        as_root "${get[@]}" update </dev/null || die "apt-get update failed" "see what it said above"
        as_root "${get[@]}" install --no-install-recommends "${missing[@]}" </dev/null ||
            die "could not install: ${missing[*]}" "install them in another way and run this again"
    fi
}

# An engine that answers makes podman unnecessary.
engine_packages() {
    if command -v podman >/dev/null || ! docker info >/dev/null 2>&1; then printf '%s\n' "${PODMAN_PACKAGES[@]}"; fi
}

# at_least WANTED FOUND: compares versions.
at_least() {
    [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}

need_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || found=
    [[ -n $found ]] ||
        die "Rust is not installed (needed: $wanted or newer)" "install it as https://rustup.rs says, then run this again"
    at_least "$wanted" "${found%%-*}" ||
        die "Rust $found is too old (needed: $wanted or newer)" "rustup update stable, or see https://rustup.rs"
    echo "Rust $found"
}

# need_go WHY: Go as new as the newest of the bundle's modules asks.
need_go() {
    local wanted found why=$1
    wanted=$(sed -n 's/^go //p' scripts/bundle/*/go.mod | sort -V | tail -n 1)
    found=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || found=
    [[ -n $found ]] || die "Go is not installed (needed: $wanted or newer, $why)" \
        "install it as https://go.dev/doc/install says (Debian's package is too old), then run this again"
    at_least "$wanted" "${found#go}" ||
        die "${found} is too old (needed: Go $wanted or newer, $why)" "see https://go.dev/doc/install"
    echo "Go ${found#go}"
}

# Whether Kubernetes' own releases (or the mirror that the user names) can be had from here.
upstream_answers() {
    [[ -n ${KUP_BUNDLE_MIRROR:-} ]] || curl -fsIL --max-time 10 -o /dev/null https://dl.k8s.io/release/stable.txt 2>/dev/null
}

# Whether kup has to be run by sudo: machines need root, unless docker is the engine and this user may use it.
needs_sudo() {
    ((EUID != 0)) && { command -v podman >/dev/null || ! docker info >/dev/null 2>&1; }
}

# kup as the user who owns clusters, bundle and image: always the same one.
kup() {
    if needs_sudo; then as_root "$KUP" "$@"; else "$KUP" "$@"; fi
}

have_bundle() {
    kup bundle path >/dev/null 2>&1
}

# The part that gets the bundle, if there is none.
get_bundle() {
    if have_bundle; then
        part "Bundle: Kubernetes, etcd, containerd and the rest" "nothing to do, it is in the cache"
        kup bundle path
    elif upstream_answers; then
        part "Bundle: Kubernetes, etcd, containerd and the rest, downloaded" "2 min on a fast line"
        kup bundle fetch
    else
        part "Bundle: Kubernetes, etcd, containerd and the rest, built from source" "20 min on two cores"
        need_go "to build the bundle: upstream cannot be reached from here"
        kup bundle build
    fi
}

get_image() {
    part "Node image: Debian with systemd and SSH" "2 min, 1 s if it is there"
    kup image build
}
