# shellcheck shell=bash
# Functions shared by the offline scripts. To be sourced.
#
# The scripts name no host. They use this machine's settings: apt's package mirror (network, local, or a file: tree),
# the installed Rust toolchain, the system's CA bundle.

say() { printf 'offline: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# as_root COMMAND…: for apt, and for a root file system with correct owners.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo --non-interactive -- "$@"; fi
}

# need COMMAND PACKAGE: installs PACKAGE if COMMAND is missing.
need() {
  command -v "$1" >/dev/null 2>&1 && return 0
  say "installing $2"
  as_root apt-get install --yes --quiet --no-install-recommends "$2" >/dev/null 2>&1 && return 0
  as_root apt-get update --quiet >/dev/null || die "apt-get update failed"
  as_root apt-get install --yes --quiet --no-install-recommends "$2" >/dev/null || die "could not install $2"
}

# unpack PACKAGE FOLDER: extracts PACKAGE's files into FOLDER without installing it.
unpack() {
  local work
  work=$(mktemp --directory)
  if ! (cd "$work" && apt-get download --quiet "$1" >/dev/null 2>&1); then
    as_root apt-get update --quiet >/dev/null || die "apt-get update failed"
    (cd "$work" && apt-get download --quiet "$1" >/dev/null 2>&1) || die "could not download $1"
  fi
  dpkg-deb --extract "$work/$1"_*.deb "$2"
  rm -r "$work"
}

# The first of apt's archives with the label Debian (the security archive has another), or nothing.
first_debian() {
  # apt, not the shell, expands $(...).
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 'Component: main' 2>/dev/null |
    awk '$1 == "Debian" && !found { print $2; found = 1 }'
}

# The URI of the Debian archive: HUB_DEBIAN_MIRROR if set, else the one that apt uses.
debian_mirror() {
  if [ -n "${HUB_DEBIAN_MIRROR:-}" ]; then
    printf '%s\n' "$HUB_DEBIAN_MIRROR"
    return 0
  fi
  local uri
  uri=$(first_debian)
  if [ -z "$uri" ]; then
    # apt names only archives whose package lists it has, and a fresh machine has none.
    say "reading apt's package lists"
    as_root apt-get update --quiet >/dev/null || die "apt-get update failed"
    uri=$(first_debian)
  fi
  [ -n "$uri" ] || die "apt has no Debian archive configured; set HUB_DEBIAN_MIRROR"
  printf '%s\n' "$uri"
}

# The keyring that Debian's archive is verified with.
debian_keyring() {
  local keyring=${HUB_DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
  [ -r "$keyring" ] || die "no Debian keyring at $keyring (install debian-archive-keyring, or set HUB_DEBIAN_KEYRING)"
  printf '%s\n' "$keyring"
}

# The system's CA bundle, including authorities added by the site.
ca_bundle() {
  local bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
  [ -r "$bundle" ] || die "no CA bundle at $bundle (install ca-certificates)"
  printf '%s\n' "$bundle"
}
