# syntax=docker/dockerfile:1

# --- build -------------------------------------------------------------------
FROM rust:1-bookworm AS build

# BoringSSL and zlib-ng are built from source (cmake), and bindgen reads headers through libclang. SQLite is built by the
# image's C compiler. The client of etcd is made from its protocol's description (protoc).
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake clang libclang-dev protobuf-compiler libprotobuf-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY crates ./crates
# Not built, but the manifest names them.
COPY benches ./benches
COPY conf ./conf
COPY config ./config

# The caches stay with the builder, so a second build compiles only what changed. The binary leaves them in
# the same step, because they are not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin cellgate \
    && install -s -m 0755 target/release/cellgate /usr/local/bin/cellgate

# --- run ---------------------------------------------------------------------
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 cellgate \
    && useradd --system --uid 10001 --gid cellgate --home-dir /etc/cellgate --shell /usr/sbin/nologin cellgate

COPY --from=build /usr/local/bin/cellgate /usr/local/bin/cellgate
COPY --chown=root:root conf /etc/cellgate/conf
COPY --chown=root:root config /etc/cellgate/config

WORKDIR /etc/cellgate
USER 10001:10001

# The proxy. The admin service listens on loopback inside the container unless told otherwise.
EXPOSE 8080

# SIGTERM drains: /readyz says no, requests in flight finish, then the process ends.
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --start-interval=1s --retries=3 \
    CMD ["cellgate", "health", "--admin", "http://127.0.0.1:9901"]

ENTRYPOINT ["cellgate"]
CMD ["edge", "-c", "conf/edge.yaml"]
