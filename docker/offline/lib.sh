# shellcheck shell=bash
# What the offline scripts share. Sourced, never run.
#
# Everything is derived from this machine's own settings: the package mirror from apt's configuration (a network
# mirror, a local one or a file: tree alike), the toolchain from rustc, certificates from the system's bundle. So the
# scripts name no host and work behind whatever mirror the machine has been given.

say() { printf 'offline: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Needs root for apt and for a root file system with its owners right.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo --non-interactive -- "$@"; fi
}

# need COMMAND PACKAGE: installs PACKAGE where COMMAND is missing.
need() {
  command -v "$1" >/dev/null 2>&1 && return 0
  say "installing $2"
  as_root apt-get install --yes --quiet --no-install-recommends "$2" >/dev/null 2>&1 && return 0
  as_root apt-get update --quiet >/dev/null || die "apt-get update failed"
  as_root apt-get install --yes --quiet --no-install-recommends "$2" >/dev/null || die "could not install $2"
}

# unpack PACKAGE FOLDER: PACKAGE's files in FOLDER; nothing is installed.
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

# The first archive of apt's that calls itself Debian (the security archive has another label), or nothing.
first_debian() {
  # apt fills in $(...), not the shell.
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 'Component: main' 2>/dev/null |
    awk '$1 == "Debian" && !found { print $2; found = 1 }'
}

# The URI of the Debian archive this machine's apt uses: HUB_DEBIAN_MIRROR if set, else what apt says.
debian_mirror() {
  if [ -n "${HUB_DEBIAN_MIRROR:-}" ]; then
    printf '%s\n' "$HUB_DEBIAN_MIRROR"
    return 0
  fi
  local uri
  uri=$(first_debian)
  if [ -z "$uri" ]; then
    # Apt names the archives whose lists it has, and a fresh machine has none.
    say "reading apt's package lists"
    as_root apt-get update --quiet >/dev/null || die "apt-get update failed"
    uri=$(first_debian)
  fi
  [ -n "$uri" ] || die "apt knows no Debian archive (set HUB_DEBIAN_MIRROR)"
  printf '%s\n' "$uri"
}

# The keyring that vouches for Debian's archive.
debian_keyring() {
  local keyring=${HUB_DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
  [ -r "$keyring" ] || die "no Debian keyring at $keyring (install debian-archive-keyring, or set HUB_DEBIAN_KEYRING)"
  printf '%s\n' "$keyring"
}

# The system's CA bundle, with whatever authority the site has added.
ca_bundle() {
  local bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
  [ -r "$bundle" ] || die "no CA bundle at $bundle (install ca-certificates)"
  printf '%s\n' "$bundle"
}
