"""Several windows of one browser, which opens only six connections to a host."""

from playwright.sync_api import expect

from .bench import TWO_SECONDS, row
from .registry import wait_for

HIDE = """on => {
    Object.defineProperty(document, "hidden", { get: () => on, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def _follows(page):
    expect(page.locator("#log-state")).to_have_text("following 1 log instance")


def _answers(page):
    """Whether the browser has a connection left for another request."""
    fetched = "() => Promise.race([fetch('/protection').then(r => r.status), new Promise(done => setTimeout(done, 5000, 'no answer'))])"
    return page.evaluate(fetched) == 200


def test_eight_windows_share_their_streams(bench):
    [log] = bench.members.join("log", log_id="log-0")
    first = bench.page()
    _follows(first)
    bench.members.call(log.say("before the others"))
    windows = [first] + [bench.window(first.context) for _ in range(7)]
    for page in windows:
        _follows(page)
        expect(row(page, log.addr)).to_be_visible()
        # A window that joins is shown what the others have.
        expect(page.locator("#log li", has_text="before the others")).to_have_count(1)
    assert len(log._tails) == 1, log.tail_queries
    bench.members.call(log.say("after"))
    [late] = bench.members.join("visit")
    for page in windows:
        expect(row(page, late.addr)).to_be_visible(timeout=TWO_SECONDS)
        expect(page.locator("#log li", has_text="after")).to_have_count(1)
        expect(page.locator("#log li")).to_have_count(2)
        assert _answers(page)


def test_windows_with_different_filters_leave_connections_free(bench):
    [log] = bench.members.join("log", log_id="log-0")
    first = bench.page()
    windows = [first] + [bench.window(first.context) for _ in range(5)]
    for number, page in enumerate(windows):
        page.get_by_label("Filter").fill(f"text {number}")
    wait_for(lambda: sum(map(_waits, windows)) == 3, "three streams are open, the others wait")
    waiting = [page for page in windows if _waits(page)]
    assert all(_answers(page) for page in windows)
    # A free stream goes to one that waits.
    next(page for page in windows if page not in waiting).close()
    wait_for(lambda: sum("following" in page.locator("#log-state").inner_text() for page in waiting) == 1, "one of them follows")


def _waits(page):
    return "other windows" in page.locator("#log-state").inner_text()


def test_hidden_windows_let_go_of_their_streams(bench):
    [log] = bench.members.join("log", log_id="log-0")
    first = bench.page()
    second = bench.window(first.context)
    for page in (first, second):
        _follows(page)
    first.evaluate(HIDE, True)
    second.evaluate(HIDE, True)
    wait_for(lambda: not log._tails, "the tail is closed")
    wait_for(lambda: first.title() == second.title() == "Hubspoke", "no title claims to be current")
    [late] = bench.members.join("visit")
    first.evaluate(HIDE, False)
    expect(row(first, late.addr)).to_be_visible(timeout=TWO_SECONDS)
    _follows(first)
    expect(first.locator("#status-text")).to_have_text("Live")
    assert first.locator("#events li", has_text="disconnected").count() == 0
    assert second.title() == "Hubspoke"


def test_a_window_that_is_closed_ends_only_its_own_streams(bench):
    [log] = bench.members.join("log", log_id="log-0")
    first = bench.page()
    second = bench.window(first.context)
    for page in (first, second):
        _follows(page)
    second.get_by_label("Filter").fill("apple")
    wait_for(lambda: len(log._tails) == 2, "two filters, two tails")
    first.close()
    wait_for(lambda: len(log._tails) == 1, "the first one's is closed")
    [late] = bench.members.join("visit")
    expect(row(second, late.addr)).to_be_visible(timeout=TWO_SECONDS)
    bench.members.call(log.say("apple pie"))
    expect(second.locator("#log li")).to_have_count(1)


def test_a_browser_without_shared_workers_has_streams_of_its_own(bench):
    [log] = bench.members.join("log", log_id="log-0")
    page = bench.page(script="delete window.SharedWorker")
    _follows(page)
    bench.members.call(log.say("hello"))
    expect(page.locator("#log li", has_text="hello")).to_have_count(1)
    page.get_by_label("Filter").fill("hel")
    wait_for(lambda: len(log.tail_queries) > 1, "the filter is passed on")
    [late] = bench.members.join("visit")
    expect(row(page, late.addr)).to_be_visible(timeout=TWO_SECONDS)
