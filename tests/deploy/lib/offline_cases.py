"""Tests of docker/offline with fake programs: what it does if something is missing or fails."""

import os
import re
import tempfile
from pathlib import Path

from .harness import ROOT, check, run

# Each fake program records its calls in $CALLS. `docker` has no images; `pull` fails unless $PULLS is set.
PROGRAMS = {
    "docker": """
        case "$1 ${2:-}" in
          "info "*) ;;
          "pull "*) [ -n "${PULLS:-}" ] || { echo "no such host" >&2; exit 1; } ;;
          import*) [ -s "${@: -2:1}" ] || { echo "nothing to import" >&2; exit 1; } ;;
          *) exit 1 ;;
        esac""",
    "mmdebstrap": """
        echo "half a root file system"
        exit "${MMDEBSTRAP:-0}" """,
    "rustc": """
        case "$1" in --version) echo "rustc $RUST" ;; *) echo /nowhere ;; esac""",
    # An apt without package lists.
    "apt-get": """
        case "$1" in
          update) touch "$CALLS.updated" ;;
          indextargets) [ ! -e "$CALLS.updated" ] || printf 'Other file:/b\\nDebian file:/a\\nDebian file:/c\\n' ;;
          *) exit 1 ;;
        esac""",
    "sudo": """
        shift 2
        exec "$@" """,
}


def run_with_fakes(*command, may_fail=False, **variables):
    """Runs a command with the fake programs on its PATH. Returns its output and the recorded calls."""
    with tempfile.TemporaryDirectory() as folder:
        calls = Path(folder) / "calls"
        calls.touch()
        for name, script in PROGRAMS.items():
            program = Path(folder) / name
            program.write_text(f'#!/bin/bash\necho "{name} $*" >>"$CALLS"\n{script}\n')
            program.chmod(0o755)
        rust = re.search(r"^ARG RUST_IMAGE=rust:([0-9.]+)", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)[1]
        env = {"RUST": f"{rust}.0", "PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls),
               "TMPDIR": folder, "HUB_DEBIAN_KEYRING": "/dev/null", "SSL_CERT_FILE": "/dev/null", **variables}
        out = run(*command, may_fail=may_fail, env=env)
        left = [path.name for path in Path(folder).glob("*.tar")]
        check(not left, f"left behind: {left}")
        return out, calls.read_text()


def incomplete_base():
    """An incomplete root file system is not imported: its image would count as present."""
    mirror = {"HUB_DEBIAN_MIRROR": "file:/a"}
    out, calls = run_with_fakes("docker/offline/bases", may_fail=True, MMDEBSTRAP="1", **mirror)
    check("mmdebstrap" in calls and "docker import" not in calls, f"{calls}{out}")
    _, calls = run_with_fakes("docker/offline/bases", **mirror)
    check(calls.count("docker import") == 2, calls)


def pulled_first():
    """Published images are preferred; a failed pull is reported."""
    _, calls = run_with_fakes("docker/offline/bases", PULLS="yes")
    check(calls.count("docker pull") == 2 and "mmdebstrap" not in calls, calls)
    _, calls = run_with_fakes("docker/offline/bases", "--etcd", PULLS="yes")
    check(calls.count("docker pull") == 3 and "/etcd:v" in calls, calls)
    out, calls = run_with_fakes("docker/offline/bases", HUB_DEBIAN_MIRROR="file:/a")
    check(len(re.findall(r"can't pull \S+: no such host", out)) == 2, out)


def fresh_apt():
    """The mirror is found on a machine whose apt has no package lists yet, and they are downloaded only once."""
    script = f". {ROOT}/docker/offline/lib.sh; debian_mirror; debian_mirror"
    out, calls = run_with_fakes("bash", "-euc", script)
    check(out.split("\n")[-3:] == ["file:/a", "file:/a", ""], out)
    check(calls.count("apt-get update") == 1, calls)
