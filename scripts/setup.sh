#!/usr/bin/env bash
# Installs the packages that the build needs and this machine lacks, with --test also those of the tests.
# With nothing missing it prints nothing and changes nothing.
#
# BoringSSL is built from source (cmake, a C and a C++ compiler), with bindings by bindgen (libclang);
# zlib-ng needs cmake as well. The etcd client is generated from protobuf files (protoc).
set -euo pipefail

tests=no
case "${1:-}" in
    "") ;;
    --test) tests=yes ;;
    *) echo "setup: unknown argument $1 (known: --test)" >&2; exit 2 ;;
esac

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    local found
    # ldconfig knows most places; the globs cover Debian's versioned ones and macOS. libclang-cpp, which
    # GPU drivers install, is another library that bindgen cannot use.
    if have ldconfig && ldconfig -p 2>/dev/null | grep -q 'libclang\(-[0-9][.0-9]*\)\?\.so'; then return 0; fi
    for found in /usr/lib/llvm-*/lib/libclang{.so,-[0-9]}* /usr/lib/*/libclang{.so,-[0-9]}* \
        /usr/lib*/libclang{.so,-[0-9]}* /Library/Developer/CommandLineTools/usr/lib/libclang.dylib; do
        [ -e "$found" ] && return 0
    done
    return 1
}

# The well-known protobuf files come with protoc, except on Debian.
have_protoc() {
    [ -n "${PROTOC:-}" ] && return 0
    have protoc || return 1
    local directory found
    directory=$(mktemp -d)
    printf 'syntax = "proto3";\nimport "google/protobuf/descriptor.proto";\n' >"$directory/it.proto"
    found=1
    protoc --proto_path="$directory" --descriptor_set_out=/dev/null it.proto >/dev/null 2>&1 && found=0
    rm -r "$directory"
    return "$found"
}

packages=()
have cmake || packages+=(cmake)
have make || packages+=(make)
have cc && { have c++ || have g++ || have clang++; } || packages+=(g++)
have_libclang || packages+=(libclang-dev)
have pkg-config || packages+=(pkg-config)
have git || packages+=(git)
have curl || packages+=(curl)
have_protoc || packages+=(protobuf-compiler libprotobuf-dev)
if [ "$tests" = yes ]; then
    have etcd || packages+=(etcd-server)
fi

if [ "${#packages[@]}" -gt 0 ]; then
    if ! have apt-get; then
        say "missing packages (Debian's names): ${packages[*]}"
        say "there is no apt-get here; install them by hand and run this again"
        exit 1
    fi
    root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! have sudo; then
            say "missing packages: ${packages[*]}"
            say "not root, and there is no sudo; have them installed: apt-get install ${packages[*]}"
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
    # Debian starts the services that it installs. The tests start their own etcd.
    if [[ " ${packages[*]} " == *" etcd-server "* ]] && [ -d /run/systemd/system ]; then
        "${root[@]}" systemctl disable --now etcd >/dev/null 2>&1 || true
    fi
fi

if ! have cargo; then
    if [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        say "cargo is in ${CARGO_HOME:-$HOME/.cargo}/bin, which is not on the PATH; add it and run this again"
    else
        say "there is no Rust here; install it from https://rustup.rs and run this again"
    fi
    exit 1
fi

# Cargo.toml names the oldest version of Rust; a clear message here is better than a compile error later.
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
present=$(rustc --version | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
if [ -n "$wanted" ] && [ "$(printf '%s\n%s\n' "$wanted" "$present" | sort -V | head -n 1)" != "$wanted" ]; then
    say "Cellgate needs Rust $wanted or newer and this is $present; \`rustup update\` brings a newer one"
    exit 1
fi
