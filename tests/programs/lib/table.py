"""The table of docs/programs.md: its commands are the ones that the cases run."""

import re
import shlex

from .platform import ROOT

# In which folder of `apps` a row's command runs. Rows without one are run elsewhere, or can't be here.
FOLDERS = {
    "Python's file server": "files",
    "Flask": "flask",
    "gunicorn, any WSGI": "flask",
    "Django": "django",
    "FastAPI, any ASGI": "fastapi",
    "Node, Express": "node",
    "A built single-page app": "spa",
    "Go, Rust": "go",
    "PHP": "php",
    "Java": "java",
    "WebSockets": "echo",
}
# gRPC is run by tests/grpc; Vite itself is not in Debian or on PyPI.
ELSEWHERE = {"gRPC, any language", "Vite"}


class Row:
    """What to write after `hub run`."""

    def __init__(self, title, command):
        words = shlex.split(command)
        assert words[:2] == ["hub", "run"], command
        end = words.index("--")
        self.options, self.command = words[2:end], words[end + 1 :]
        self.folder = FOLDERS[title]


def rows():
    text = (ROOT / "docs/programs.md").read_text()
    cells = re.findall(r"^\| ([^|]+) \| `(hub run [^`]+)` \|", text, re.MULTILINE)
    assert {title for title, _ in cells} == FOLDERS.keys() | ELSEWHERE, cells
    return {title: Row(title, command) for title, command in cells if title in FOLDERS}
