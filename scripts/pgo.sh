#!/usr/bin/env bash
# Builds target/pgo/cellgate: the release binary, compiled with the profile of a recorded load. The load is the
# bench's own: kept and new connections, small and large bodies, the access log, changes of the table.
# Needs cellgate-bench, which `make pgo` builds first.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO=${CARGO:-cargo}
BENCH=${BENCH_PROGRAM:-target/release/cellgate-bench}
profdata=$(bash scripts/setup-pgo.sh)
host=$(rustc -vV | sed -n 's/^host: //p')
dir=$PWD/target/pgo

# With --target, build scripts and macros, which run while building, are compiled without these flags.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} $1" "$CARGO" build --release --locked --bin cellgate \
        --target "$host" --target-dir "$dir/build"
    install -m 0755 "$dir/build/$host/release/cellgate" "$2"
}

rm -rf "$dir/raw"
build "-Cprofile-generate=$dir/raw" "$dir/cellgate-recording"
# On every processor: what is recorded is how often, not how long.
"$BENCH" run --what steady,log,change --peers cellgate --cellgate "$dir/cellgate-recording" \
    --keys 10000,1000000 --rounds 1 --seconds 4 --out "$dir/recording.jsonl"
"$profdata" merge -o "$dir/cellgate.profdata" "$dir/raw"
build "-Cprofile-use=$dir/cellgate.profdata" "$dir/cellgate"
echo "pgo: target/pgo/cellgate" >&2
