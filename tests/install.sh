# What tests and benchmarks do to have what they need on a bare Debian machine. To be sourced.

step() { printf '\n== %s\n' "$*"; }

# Installs Debian packages, if any are named.
install_debian() {
  if [ $# -eq 0 ]; then return; fi
  step "installing $*"
  local as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  # Debian starts a Redis of its own after installing one; who needs one here starts theirs.
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
