#!/usr/bin/env bash
# Brings what `make pgo` needs and prints the command to call it by: an llvm-profdata of the LLVM that rustc was
# built with, for profiles of another one cannot be merged. Taken from the first of: LLVM_PROFDATA, rustup's
# llvm-tools, the system, Debian's unstable (unpacked into target/pgo/llvm with the libraries it needs; nothing
# is installed). Safe to run as often as you like.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup-pgo: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
host=$(rustc -vV | sed -n 's/^host: //p')

# Whether a command is an llvm-profdata of that LLVM.
fits() {
    "$@" --version 2>/dev/null | grep -q "LLVM version $major\."
}

if [ -n "${LLVM_PROFDATA:-}" ]; then
    echo "$LLVM_PROFDATA"
    exit
fi
for candidate in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "llvm-profdata-$major" llvm-profdata; do
    if have "$candidate" && fits "$candidate"; then
        echo "$candidate"
        exit
    fi
done

llvm=$PWD/target/pgo/llvm
tool=$llvm/llvm-profdata
if [ ! -x "$tool" ]; then
    if ! have apt-get || ! have dpkg; then
        say "no llvm-profdata of LLVM $major; \`rustup component add llvm-tools\` brings it, or set LLVM_PROFDATA"
        exit 1
    fi
    say "bringing llvm-profdata $major from Debian's unstable"
    rm -rf "$llvm"
    mkdir -p "$llvm"/{lists,archives}/partial "$llvm/root"
    # Its own lists and an empty status: the libraries come along, and the system's packages are not looked at.
    touch "$llvm/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" \
        >"$llvm/sources.list"
    apt=(apt-get -q
        -o Dir::Etc::sourcelist="$llvm/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$llvm/lists" -o Dir::State::status="$llvm/status"
        -o Dir::Cache="$llvm/cache" -o Dir::Cache::archives="$llvm/archives" -o Debug::NoLocking=1)
    if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends --download-only "llvm-$major"; } \
        >"$llvm/apt.log" 2>&1; then
        say "Debian's unstable has no llvm-$major for us, see target/pgo/llvm/apt.log; set LLVM_PROFDATA"
        exit 1
    fi
    for archive in "$llvm"/archives/*.deb; do
        dpkg -x "$archive" "$llvm/root"
    done
    rm -rf "$llvm/archives" "$llvm/lists" "$llvm/cache"
    # Newer than this system, so it runs with the loader and the libraries that it came with.
    loader=$(find "$llvm/root" -name 'ld-linux*.so.*' | sort | head -n 1)
    libraries=$(dirname "$(find "$llvm/root" -name 'libLLVM.so.*' | head -n 1)"):$(dirname "$(find "$llvm/root" -name libc.so.6)")
    profdata=$(find "$llvm/root" -path "*/llvm-$major/bin/llvm-profdata")
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$loader" "$libraries" "$profdata" >"$tool"
    chmod +x "$tool"
fi
if ! fits "$tool"; then
    say "$tool is not of LLVM $major: $("$tool" --version 2>&1 | head -n 3)"
    exit 1
fi
echo "$tool"
