#!/usr/bin/env bash
# Measures Jobcast beside what it is compared with, on a bare Debian machine with Rust and Node: installs what is
# missing, builds everything, runs all loads and writes benches/results. Arguments go to the runner: see --help, and
# README.md for what is measured and how to measure a part of it.
set -euo pipefail
cd "$(dirname "$0")/.."

source tests/install.sh

command -v redis-server >/dev/null || install_debian redis-server
install_node_modules benches/opponents

step "building"
npm run --silent --prefix benches/opponents build
programs=${CARGO_TARGET_DIR:-target}/release
# One by one: built together, each would get the features that the others want of shared crates.
if [ -z "${JOBCAST_BIN:-}" ]; then
  cargo build --locked --release --package jobcast
  export JOBCAST_BIN=$programs/jobcast
fi
cargo build --locked --release --package jobcast-limits
cargo build --locked --release --package jobcast-load

step "measuring"
exec "$programs/jobcast-load" "$@"
