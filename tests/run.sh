#!/usr/bin/env bash
# All checks and tests, on a bare Debian machine with Rust and Node: installs what is missing, fails loudly.
set -euo pipefail
cd "$(dirname "$0")/.."

source tests/install.sh

install_packages() {
  local missing=()
  command -v redis-server >/dev/null || missing+=(redis-server)
  command -v openssl >/dev/null || missing+=(openssl)
  command -v valgrind >/dev/null || missing+=(valgrind)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v python3 >/dev/null || missing+=(python3)
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  install_debian "${missing[@]}"
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

step "fault runs, each in its short form"
cargo test --locked --test faults

step "instructions of the hot paths"
cargo test --locked --profile cost -p jobcast-cost -- --nocapture

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

step "black-box tests with real clients"
cargo build --locked
export JOBCAST_BIN=$PWD/target/debug/jobcast
(cd tests/js && node --test --test-timeout=300000 --test-concurrency=2 ./*.test.mjs)
