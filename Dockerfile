# syntax=docker/dockerfile:1
# The pipeline's one binary: built with the workspace's toolchain, run on a slim image without it.

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-slim-bookworm AS build
# librdkafka is compiled with cmake, against these libraries
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential cmake libssl-dev pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# the caches outlive the layer, the binary must not stay in one of them
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package tapeline \
    && install -D target/release/tapeline /out/tapeline

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tapeline
COPY --from=build /out/tapeline /usr/local/bin/tapeline
USER 10001
# health and metrics of every stage
EXPOSE 9100
ENTRYPOINT ["tapeline"]
CMD ["--help"]
