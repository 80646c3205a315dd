#!/usr/bin/env bash
# Measures Jobcast beside what it is compared with, on a bare Debian machine with Rust and Node: installs what is
# missing, builds everything, runs all loads and writes benches/results. Arguments go to the runner: see --help, and
# README.md for what is measured and how to measure a part of it.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

install_packages() {
  if command -v redis-server >/dev/null; then return; fi
  step "installing redis-server"
  local as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  # Debian starts a Redis of its own after installing one; the measurements start theirs.
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq redis-server >/dev/null
}

# Installs a folder's packages, unless the lock file is the one that is installed already.
install_node_modules() {
  local folder=$1 stamp=$1/node_modules/.installed-lock
  if cmp -s "$folder/package-lock.json" "$stamp"; then return; fi
  step "npm ci in $folder"
  npm ci --prefix "$folder" --no-audit --no-fund
  cp "$folder/package-lock.json" "$stamp"
}

install_packages
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
