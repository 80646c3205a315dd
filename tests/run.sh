#!/usr/bin/env bash
# All checks and tests, on a bare Debian machine with Rust and Node: installs what is missing, fails loudly.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

install_packages() {
  local missing=()
  command -v redis-server >/dev/null || missing+=(redis-server)
  command -v openssl >/dev/null || missing+=(openssl)
  command -v valgrind >/dev/null || missing+=(valgrind)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v python3 >/dev/null || missing+=(python3)
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  step "installing ${missing[*]}"
  local as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  # Debian starts a Redis of its own after installing one; the tests start theirs.
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq "${missing[@]}" >/dev/null
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
install_node_modules tests/js
install_node_modules client-demo

step "formatting and lints"
cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings
npm run --silent --prefix client-demo typecheck

if command -v cargo-deny >/dev/null; then
  step "licences and sources of dependencies"
  cargo deny --offline check bans licenses sources
fi

step "unit, property and conformance tests"
cargo test --locked --workspace

step "instructions of the hot paths"
cargo test --locked --profile cost -p jobcast-cost -- --nocapture

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

step "black-box tests with real clients"
cargo build --locked
export JOBCAST_BIN=$PWD/target/debug/jobcast
(cd tests/js && node --test --test-timeout=300000 --test-concurrency=2 ./*.test.mjs)
