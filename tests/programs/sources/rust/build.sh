#!/bin/sh
# Builds the programs in FOLDER from Debian's packages alone: build.sh FOLDER [--release]
set -eu
mkdir -p "$1"
cp -p "$(dirname "$0")"/*.rs "$(dirname "$0")"/Cargo.toml "$1" # a copy: cargo leaves a Cargo.lock beside the sources
cd "$1"
shift
RUSTC=/usr/bin/rustc CARGO_HOME="$PWD/home" exec /usr/bin/cargo build --offline --quiet \
    --config 'source.crates-io.replace-with="debian"' \
    --config 'source.debian.directory="/usr/share/cargo/registry"' "$@"
