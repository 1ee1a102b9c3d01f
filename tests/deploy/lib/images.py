"""Builds the images and checks their size, user, content and labels."""

import json

from .harness import ROOT, WORK, check, run, say
from .platform import ENV, MEMBERS, compose

NAMES = ("registry", *MEMBERS, "hub")
MIB = 1024 * 1024


def image(name):
    return json.loads(run("docker", "image", "inspect", f"hubspoke/{name}:test"))[0]


def build():
    run("docker/offline/prepare", timeout=900)  # a slow connection may take 300 per image
    # Takes minutes: its output shows the progress.
    compose("--profile", "tools", "build", "--progress", "plain", timeout=2400, quiet=False)


def small():
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    base = next(line.split("=", 1)[1] for line in dockerfile.splitlines() if line.startswith("ARG RUNTIME_IMAGE="))
    floor = json.loads(run("docker", "image", "inspect", base))[0]["Size"]
    for name in NAMES:
        own = (image(name)["Size"] - floor) / MIB
        say(f"hubspoke/{name}: {own:.1f} MiB on a base of {floor / MIB:.1f} MiB")
        # hub has all services in it, and `hub run`.
        check(own <= (28 if name == "hub" else 16), f"hubspoke/{name} adds {own:.1f} MiB to its base")


def described():
    for name in NAMES:
        config = image(name)["Config"]
        check(config["User"] == "65532:65532", f"{name}: user {config['User']!r}")
        check(config["Entrypoint"] == [f"/usr/local/bin/{name}"], f"{name}: {config['Entrypoint']}")
        check(config.get("StopSignal") == "SIGTERM", f"{name}: stop signal {config.get('StopSignal')}")
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
        expected = {"title": f"hubspoke/{name}", "version": ENV["HUBSPOKE_VERSION"],
                    "revision": ENV["HUBSPOKE_REVISION"], "licenses": "MIT OR Apache-2.0"}
        for label, value in expected.items():
            check(labels.get(label) == value, f"{name}: the label {label} is {labels.get(label)!r}")
        check(labels.get("description"), f"{name}: no description")
        if name != "hub":
            check(config["Healthcheck"]["Test"] == ["CMD", f"/usr/local/bin/{name}", "healthcheck"], f"{name}: health")


def bare():
    for name in NAMES:
        out = run("docker", "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", f"hubspoke/{name}:test",
                  "-c", "true", may_fail=True)
        check("no such file" in out, f"{name} has a shell: {out}")
        out = run("docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL",
                  f"hubspoke/{name}:test", "--version")
        check(out.split()[-1][:1].isdigit(), f"{name} --version prints {out!r}")


def settings():
    """Each image contains its file of config/ unchanged, and its binary reads this file and the image's variables."""
    for name in NAMES[:-1]:
        file = f"config/{name}.toml"
        container = run("docker", "create", "--network", "none", f"hubspoke/{name}:test", "--check-config").strip()
        try:
            copy = WORK / f"{name}.toml"
            copy.parent.mkdir(parents=True, exist_ok=True)
            run("docker", "cp", f"{container}:/{file}", copy)
            check(copy.read_bytes() == (ROOT / file).read_bytes(), f"the image of {name} contains another {file}")
            out = run("docker", "start", "--attach", container)
        finally:
            run("docker", "rm", container)
        check("# HUB_LISTEN" in out, f"{name} does not read its variables:\n{out}")
        # The registry's file has every default as a comment, so no value comes from it.
        check(f"# {file}" in out or name == "registry", f"{name} does not read {file}:\n{out}")
