#!/usr/bin/env bash
# Installs what the build needs and this machine lacks. Safe to run as often as you like: with nothing
# missing it says nothing and changes nothing.
#
# BoringSSL is built from source (cmake, a C and a C++ compiler) and bound by bindgen (libclang);
# zlib-ng needs cmake as well.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    local found
    # llvm-config and ldconfig know most places; the globs cover Debian's versioned ones and macOS.
    # libclang-cpp is another library, which GPU drivers bring along and bindgen has no use for.
    if have ldconfig && ldconfig -p 2>/dev/null | grep -q 'libclang\(-[0-9][.0-9]*\)\?\.so'; then return 0; fi
    for found in /usr/lib/llvm-*/lib/libclang{.so,-[0-9]}* /usr/lib/*/libclang{.so,-[0-9]}* \
        /usr/lib*/libclang{.so,-[0-9]}* /Library/Developer/CommandLineTools/usr/lib/libclang.dylib; do
        [ -e "$found" ] && return 0
    done
    return 1
}

packages=()
have cmake || packages+=(cmake)
have make || packages+=(make)
have cc && { have c++ || have g++ || have clang++; } || packages+=(g++)
have_libclang || packages+=(libclang-dev)
have pkg-config || packages+=(pkg-config)
have git || packages+=(git)
have curl || packages+=(curl)

if [ "${#packages[@]}" -gt 0 ]; then
    if ! have apt-get; then
        say "the build needs these Debian packages, or what this system calls them: ${packages[*]}"
        say "there is no apt-get here; please install them by hand and run this again"
        exit 1
    fi
    root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! have sudo; then
            say "the build needs: ${packages[*]}"
            say "not root, and there is no sudo; please have them installed: apt-get install ${packages[*]}"
            exit 1
        fi
        root=(sudo)
    fi
    say "installing ${packages[*]}"
    install=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends)
    # A fresh machine has no package lists yet, or old ones.
    "${install[@]}" "${packages[@]}" >/dev/null 2>&1 || {
        "${root[@]}" apt-get update -q >/dev/null
        "${install[@]}" "${packages[@]}" >/dev/null
    }
fi

if ! have cargo; then
    if [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        say "cargo is in ${CARGO_HOME:-$HOME/.cargo}/bin, which is not on the PATH; add it and run this again"
    else
        say "there is no Rust here; install it from https://rustup.rs and run this again"
    fi
    exit 1
fi

# The version in Cargo.toml is the oldest that compiles this; better a clear word now than an error later.
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
present=$(rustc --version | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
if [ -n "$wanted" ] && [ "$(printf '%s\n%s\n' "$wanted" "$present" | sort -V | head -n 1)" != "$wanted" ]; then
    say "Cellgate needs Rust $wanted or newer and this is $present; \`rustup update\` brings a newer one"
    exit 1
fi
