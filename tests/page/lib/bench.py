"""The fixture of a case: a registry, members, and pages in a real browser.

A console message, an uncaught error, a dialog or a request to another host fails the case, unless the case has declared
that it expects it."""

import contextlib
import json
import re
import shutil
import tempfile
import urllib.error
import urllib.request

from playwright.sync_api import expect, sync_playwright

from .members import Members
from .registry import Registry

# Generous, because the machine may be busy.
SOON = 20_000
# The requirement: a change shows within two seconds.
TWO_SECONDS = 2_000

expect.set_options(timeout=SOON)


@contextlib.contextmanager
def launch():
    with sync_playwright() as playwright:
        # The sandbox does not work as root, and only our own page is opened.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


class Bench:
    def __init__(self, browser, files=None):
        self.browser = browser
        self.files = files
        self.folder = tempfile.mkdtemp(prefix="hubspoke-page-")
        self.complaints = []
        self.expected = []
        self._ends = contextlib.ExitStack()
        self._ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._registry = None
        self._members = None
        self.token = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ends.close()

    @property
    def registry(self):
        if not self._registry:
            self._registry = Registry(self.folder, self.token)
            self._ends.callback(lambda: self._registry.stop())
        return self._registry

    @property
    def members(self):
        if not self._members:
            self._members = Members(self.registry.url, self.token)
            self._ends.callback(self._members.close)
        return self._members

    def own(self, thing, end):
        """Registers how to end something that the case has started."""
        self._ends.callback(end)
        return thing

    def replace_registry(self):
        """Replaces the registry with an empty one at the same address."""
        self.registry.stop()
        self._registry = Registry(self.folder, self.token, self._registry.port)

    def page(self, width=1280, height=900, url=None, script=None, **options):
        """Opens a page in a browser of its own and waits until it is live. `script` runs before the page's own."""
        context = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        self._ends.callback(context.close)
        if script:
            context.add_init_script(script)
        return self.window(context, url)

    def window(self, context, url=None):
        """Opens another window of the same browser and waits until it is live."""
        page = context.new_page()
        origin = url or self.registry.url
        page.on("console", lambda message: self._complain(f"console: {message.text}"))
        page.on("pageerror", lambda error: self._complain(f"error: {error}"))
        page.on("dialog", lambda dialog: (self._complain(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._complain(f"foreign: {request.url}") if not request.url.startswith(origin + "/") else None)
        if self.files:
            page.route(re.compile(r"/page/[a-z]+\.(js|css)$"), lambda route: route.fulfill(path=self.files / route.request.url.rsplit("/", 1)[1]))
        page.goto(origin + "/")
        expect(page.locator("#status-text")).to_have_text("Live")
        return page

    def expect_complaint(self, text):
        self.expected.append(text)

    def _complain(self, text):
        if not any(part in text for part in self.expected):
            self.complaints.append(text)

    def check_clean(self):
        assert not self.complaints, self.complaints

    def call(self, method, path, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.registry.url + path, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.headers, reply.read().decode()

    def status(self, method, path, body=None, **headers):
        """Status and headers of a call that may be refused."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.registry.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers

    def catalog(self):
        return json.loads(self.call("GET", "/services")[2])["Services"]


def row(page, addr):
    return page.locator(f'tr[data-key="{addr}"]:not(.leaving)')


def rows(page):
    return page.locator("tbody tr:not(.leaving)")


def nodes(page):
    return page.locator(".instance:not(.leaving)")
