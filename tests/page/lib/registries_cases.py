"""Several registries that share an etcd."""

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from .bench import row, rows
from .etcd import Etcd
from .members import Members
from .registry import Registry, answers, wait_for
from .use_cases import PHONE

# What another registry does is shown within its lease and a report (ms); generous, because the machine may be busy.
SOON = 20_000


class Platform:
    """Some registries on one etcd, and members of the first."""

    def __init__(self, bench, count):
        self._bench = bench
        self.etcd = Etcd(bench.folder)
        bench.own(self.etcd, self.etcd.stop)
        self.registries = []
        for _ in range(count):
            self.join()
        self.members = Members(self.registries[0].url)
        bench.own(self.members, self.members.close)

    def join(self):
        one = Registry(
            self._bench.folder,
            HUB_REGISTRY__STORE="etcd",
            HUB_ETCD__ENDPOINTS=self.etcd.url,
            HUB_ETCD__LEASE="2s",
            HUB_ETCD__REQUEST_TIMEOUT="1s",
        )
        self._bench.own(one, one.stop)
        wait_for(lambda: answers(f"{one.url}/readyz"), "the registry has read etcd")
        self.registries.append(one)
        return one


def shown(page):
    return page.locator("#registry-list li")


def entry(page, registry):
    return page.locator("#registry-list li", has_text=f"127.0.0.1:{registry.port}")


def test_the_only_registry_shows_no_others(bench):
    [log] = bench.members.join("log")
    page = bench.page()
    expect(row(page, log.addr)).to_be_visible()
    expect(page.locator("#registries")).to_be_hidden()
    expect(page.locator("#etcd-lost")).to_be_hidden()


def test_registries_come_and_go(bench):
    platform = Platform(bench, 3)
    first, second, third = platform.registries
    platform.members.join("log", 6)
    pages = [bench.page(url=one.url) for one in (first, second)]
    for page, asked in zip(pages, (first, second)):
        expect(shown(page)).to_have_count(3)
        expect(page.locator("#registry-list .asked:visible")).to_have_count(1)
        expect(entry(page, asked).locator(".asked")).to_be_visible()
        expect(page.locator("#etcd")).to_have_text("etcd answers")
        expect(rows(page)).to_have_count(6)
    checked = re.compile(r"checks (\d+) instance")
    numbers = [int(checked.search(text)[1]) for text in shown(pages[0]).all_inner_texts()]
    assert sum(numbers) == 6, numbers

    third.child.kill()
    fourth = platform.join()
    for page in pages:
        expect(entry(page, third)).to_have_count(0, timeout=SOON)
        expect(entry(page, fourth)).to_be_visible(timeout=SOON)
        expect(shown(page)).to_have_count(3)
        events = page.locator("#events li")
        expect(events.filter(has_text=f"registry 127.0.0.1:{third.port} left")).to_have_count(1)
        expect(events.filter(has_text=f"registry 127.0.0.1:{fourth.port} joined")).to_have_count(1)
        # Its work is taken over: the counts of those that are left add up again.
        expect(rows(page)).to_have_count(6)


def test_an_etcd_that_does_not_answer(bench):
    platform = Platform(bench, 2)
    [log] = platform.members.join("log")
    page = bench.page(url=platform.registries[1].url)
    expect(page.locator("#etcd")).to_have_text("etcd answers")
    expect(page.locator("#etcd-lost")).to_be_hidden()
    platform.etcd.stop()
    expect(page.locator("#etcd-lost")).to_contain_text(re.compile(r"etcd has not answered since \d\d:\d\d:\d\d .*No instance can join"))
    expect(page.locator("#etcd")).to_have_attribute("data-state", "down")
    expect(page.locator("#etcd")).to_have_text(re.compile(r"no answer from etcd for \d+ s"))
    expect(page).to_have_title(re.compile("^⚠ "))
    expect(page.locator("#events li.bad").filter(has_text="etcd does not answer")).to_have_count(1)
    # Who runs is still shown, and not as stale.
    expect(row(page, log.addr)).to_have_attribute("data-state", "passing")
    expect(page.locator("#status-text")).to_have_text("Live")
    platform.etcd.start()
    expect(page.locator("#etcd-lost")).to_be_hidden()
    expect(page.locator("#etcd")).to_have_text("etcd answers")
    expect(page.locator("#events li.good").filter(has_text="etcd answers again")).to_have_count(1)
    expect(page).to_have_title(re.compile("^[^⚠]"))


def test_registries_in_both_themes_and_on_a_phone(bench):
    platform = Platform(bench, 3)
    platform.members.join("log", 3)
    looks = ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"color_scheme": "dark", **PHONE}, {"color_scheme": "light", **PHONE, "width": 320})
    pages = [bench.page(url=platform.registries[0].url, **look) for look in looks]
    for page in pages:
        expect(shown(page)).to_have_count(3)
    _check(pages, looks, "up")
    platform.etcd.stop()
    for page in pages:
        expect(page.locator("#etcd")).to_have_attribute("data-state", "down")
    _check(pages, looks, "down")


def _check(pages, looks, state):
    for page, look in zip(pages, looks):
        page.wait_for_timeout(1800)  # until all transitions have ended
        found = Axe().run(page)
        assert found.violations_count == 0, (look, state, found.generate_report())
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= page.viewport_size["width"], (look, state, wide)
