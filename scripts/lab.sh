# Sourced by the scripts beside it: where the lab is cached, and how a part of it is made exactly once.
# shellcheck shell=bash
set -euo pipefail

# The cache outside the repository. Everything in it can be deleted at any time; it is made again.
lab=${MOULT_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/moult-lab}
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$scripts")
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
# Debian keeps ip and friends there, and not every way to become root does.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '%s\n' "$*" >&2; }
die() {
  say "${0##*/}: $*"
  exit 1
}

# Runs a command; what it prints is shown only if it fails.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ "$status" -eq 0 ] || { tail -n 40 "$log" >&2; say "failed ($status): $*"; }
  rm -f "$log"
  return "$status"
}

# make_once TARGET FUNCTION: unless the directory TARGET exists, has FUNCTION fill a new directory
# (its only argument) and renames that to TARGET. Two at once: the second waits for the first. A
# half-made directory never bears TARGET's name.
make_once() {
  local target=$1 function=$2 work
  [ ! -d "$target" ] || return 0
  mkdir -p "$(dirname "$target")"
  exec {lock}>"$target.lock"
  flock "$lock"
  if [ ! -d "$target" ]; then
    rm -rf --one-file-system "$target".new-*  # left by one that was killed; the lock is ours
    work=$(mktemp -d "$target.new-XXXXXX")
    # In a subshell with its own errexit: `if`, `&&` and `||` would switch it off inside FUNCTION.
    set +e
    (set -e; "$function" "$work")
    local status=$?
    set -e
    if [ "$status" -ne 0 ]; then
      rm -rf --one-file-system "$work"
      die "could not make $target"
    fi
    chmod 755 "$work"
    mv -T "$work" "$target"
  fi
  exec {lock}>&-
}

# The Debian archive this machine itself uses, as apt knows it: the first component of whatever
# archive has the running release. A mirror given in MOULT_DEBIAN_MIRROR wins.
mirror() {
  if [ -n "${MOULT_DEBIAN_MIRROR:-}" ]; then
    echo "$MOULT_DEBIAN_MIRROR"
    return
  fi
  local release archive
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  known() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
      awk -v release="$release" '$2 == release && $3 == "main" { print $1; exit }'
  }
  archive=$(known)
  if [ -z "$archive" ]; then
    quietly apt-get -q update
    archive=$(known)
  fi
  [ -n "$archive" ] || die "apt has no source for this release; set MOULT_DEBIAN_MIRROR"
  echo "$archive"
}
