"""What the cases share: the platform, the applications in a folder of their own, and a browser."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from .platform import ROOT, Platform
from .table import rows

APPS = ROOT / "tests/programs/apps"
# Programs that the suite does not install.
OPTIONAL = {"Java": "javac"}


class Bench:
    def __init__(self, folder):
        self.folder = Path(folder)
        shutil.copytree(APPS, self.folder, dirs_exist_ok=True)
        self.rows = rows()
        self._ends = contextlib.ExitStack()
        # The Python of this suite has the packages of the applications.
        self.platform = Platform(self.folder, f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        self._ends.callback(self.platform.stop)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ends.close()

    def lacks(self, title):
        """The program without which a row can't be run here."""
        needed = OPTIONAL.get(title)
        return needed if needed and not shutil.which(needed) else None

    @contextlib.contextmanager
    def run(self, title, name, options=(), env=None):
        """Runs the command of a row of the table."""
        if self.lacks(title):
            raise Skipped(f"{self.lacks(title)} is not on this machine")
        row = self.rows[title]
        self._build(row.folder)
        with self.platform.run(name, row.command, row.folder, (*row.options, *options), env):
            yield self.platform

    @contextlib.contextmanager
    def django(self, name, prefix=None):
        """Django with an empty database and a user called admin."""
        env = {"FORCE_SCRIPT_NAME": prefix} if prefix else {}
        env["DATABASE"] = str(self.folder / f"{name}.sqlite")
        values = {"USERNAME": "admin", "PASSWORD": "for a test", "EMAIL": "admin@site.example"}
        user = {f"DJANGO_SUPERUSER_{key}": value for key, value in values.items()}
        for command in (["migrate", "--verbosity", "0"], ["createsuperuser", "--noinput"]):
            subprocess.run(
                [sys.executable, "manage.py", *command],
                cwd=self.folder / "django",
                env=self.platform.environment() | env | user,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        with self.run("Django", name, env=env) as platform:
            yield platform

    def _build(self, folder):
        build = {"go": self._build_go, "spa": functools.partial(self.build_spa, "/")}.get(folder)
        if build and not (self.folder / folder / ("server" if folder == "go" else "dist")).exists():
            build()

    def _build_go(self):
        cache = ROOT / "target/programs/go"
        env = {"PATH": os.environ["PATH"], "GOCACHE": str(cache), "HOME": str(self.folder), "CGO_ENABLED": "0"}
        subprocess.run(["go", "build", "-o", "server", "server.go"], cwd=self.folder / "go", env=env, check=True)

    def build_spa(self, base):
        """Bundles the single-page app as Vite does for `base`: names with hashes, modules of their own for what is
        loaded later."""
        folder = self.folder / "spa"
        shutil.rmtree(folder / "dist", ignore_errors=True)
        command = ["esbuild", "src/app.js", "--bundle", "--splitting", "--format=esm", "--minify", "--log-level=error"]
        command += ["--outdir=dist/assets", "--entry-names=[name]-[hash]", "--loader:.svg=file"]
        command.append(f'--define:BASE="{base}"')
        subprocess.run(command, cwd=folder, check=True)
        script, style = (next((folder / "dist/assets").glob(f"app-*.{suffix}")).name for suffix in ("js", "css"))
        (folder / "dist/index.html").write_text(
            f'<!doctype html>\n<title>App</title>\n<link rel="stylesheet" href="{base}assets/{style}">\n'
            f'<h1></h1><a href="">An order</a><output></output>\n'
            f'<script type="module" src="{base}assets/{script}"></script>\n'
        )

    @functools.cached_property
    def _browser(self):
        playwright = self._ends.enter_context(sync_playwright())
        # The sandbox does not work as root, and only our own pages are opened.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        self._ends.callback(browser.close)
        return browser

    @contextlib.contextmanager
    def page(self):
        """A page in a browser without cookies. Errors in the page and responses with 4xx or 5xx fail the case."""
        complaints = []
        context = self._browser.new_context()
        try:
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
            page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}: {request.failure}"))
            page.on("response", lambda response: complaints.append(f"{response.status}: {response.url}"))
            yield page
        finally:
            context.close()
        good = ("2", "3")
        complaints = [one for one in complaints if not one.startswith(good) and not one.endswith("/favicon.ico")]
        assert not complaints, complaints


class Skipped(Exception):
    """Why a case can't run here."""
