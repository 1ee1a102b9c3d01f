"""What an operator can do, and others can not."""

import json
import re
import signal
import urllib.request

from playwright.sync_api import expect

from .bench import TWO_SECONDS, row
from .registry import TARGET, Process, answers, free_port, wait_for


def _unlock(page, token):
    page.get_by_role("button", name="Unlock draining").click()
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")


def test_the_page_is_read_only_without_a_token(bench):
    [member] = bench.members.join("log")
    page = bench.page()
    expect(row(page, member.addr)).to_be_visible()
    expect(row(page, member.addr).get_by_role("button")).to_have_count(0)
    calls = []
    page.on("request", lambda request: calls.append((request.method, request.headers.get("authorization"))))
    page.reload()
    expect(row(page, member.addr)).to_be_visible()
    assert calls and all(call == ("GET", None) for call in calls), calls


def test_drain_and_undrain_with_the_token(bench):
    bench.token = "hush-hush"
    members = bench.members.join("log", 2, log_id="log-1")
    bench.expect_complaint("401 (Unauthorized)")
    page = bench.page()
    # If the registry has a token, the relayed log requires it, too.
    expect(page.locator("#log-state")).to_have_text("unlock to read the log")
    drain = row(page, members[0].addr).get_by_role("button", name=f"Drain log {members[0].addr}")

    _unlock(page, "wrong")
    drain.click()
    expect(page.locator("#notice")).to_contain_text("refused the token")
    expect(drain).to_be_hidden()

    _unlock(page, bench.token)
    expect(page.locator("#log-state")).to_have_text("following 2 log instances")
    drain.click()
    expect(row(page, members[0].addr)).to_have_attribute("data-state", "draining", timeout=TWO_SECONDS)
    expect(page.locator('.instance[data-state="draining"]')).to_have_count(1)
    expect(page.locator("#notice")).to_have_text(f"log {members[0].addr} gets no new requests.")
    expect(page.locator("#events li").first).to_contain_text(f"log {members[0].addr} draining")
    states = {one["Addr"]: one["State"] for one in bench.catalog()["log"]}
    assert states == {members[0].addr: "draining", members[1].addr: "passing"}
    row(page, members[0].addr).get_by_role("button", name=f"Undrain log {members[0].addr}").click()
    expect(row(page, members[0].addr)).to_have_attribute("data-state", "passing", timeout=TWO_SECONDS)

    # The token is in memory only, and gone when the page is locked.
    stored = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href, document.getElementById('token').value]")
    assert stored == [0, 0, "", bench.registry.url + "/", ""], stored
    page.get_by_role("button", name="Lock draining").click()
    expect(drain).to_be_hidden()
    expect(page.locator("#log-state")).to_have_text("unlock to read the log")


def test_a_drain_that_is_refused_is_reported(bench):
    [member] = bench.members.join("log")
    page = bench.page()
    bench.expect_complaint("404")
    page.route("**/drain", lambda route: route.continue_(url=route.request.url.replace("127.0.0.1%3A", "127.0.0.9%3A")))
    _unlock(page, "")
    row(page, member.addr).get_by_role("button").click()
    expect(page.locator("#notice")).to_contain_text("no instance of \"log\" has the address")


def test_the_whole_platform(bench):
    ports = [free_port() for _ in range(5)]
    names = ["LISTEN", "HUB__GATEWAY", "HUB__GATEWAY_CONTROL", "HUB__LOG", "HUB__VISIT"]
    variables = {f"HUB_{name}": f"127.0.0.1:{port}" for name, port in zip(names, ports)}
    variables |= {"HUB_HUB__DATA_DIR": bench.folder, "HUB_REGISTRY__HEARTBEAT__INTERVAL": "500ms"}
    hub = Process([TARGET / "hub", "up"], bench.folder, **variables)
    bench.own(hub, hub.stop)
    registry, gateway = (f"http://127.0.0.1:{port}" for port in ports[:2])

    def catalog():
        return json.loads(urllib.request.urlopen(f"{registry}/services", timeout=5).read())["Services"]

    def counters():
        return {one["Addr"]: one["Load"]["Requests"] for one in catalog()["log"] if "Load" in one}

    def visit(times):
        for _ in range(times):
            urllib.request.urlopen(f"{gateway}/visit", timeout=10).read()

    wait_for(lambda: answers(f"{gateway}/visit"), "visits are served", 30)
    page = bench.page(url=registry)
    expect(page.locator("#log-state")).to_have_text("following 3 log instances")
    expect(page.locator("#summary")).to_have_text("3 services · 5 instances")
    wait_for(lambda: len(counters()) == 3, "all replicas have reported their load")
    expect(page.locator(".card[data-key=log] caption")).to_have_text(re.compile("no recent requests|request"))
    page.wait_for_timeout(1500)  # by then, both ends of the window have samples
    before = counters()
    visit(200)
    wait_for(lambda: sum(counters().values()) - sum(before.values()) >= 200, "heartbeats report the visits")
    expect(page.locator("#log li").last).to_contain_text("visit")

    # The page counts from when it was opened, and its own log tail is a request, too: hence the margin of 1 %.
    now = counters()
    since = {addr: now[addr] - before[addr] for addr in now}
    shares = {addr: 100 * count / sum(since.values()) for addr, count in since.items()}

    def agrees():
        shown = _shown(page)
        return len(shown) == 3 and all(abs(shown[addr] - shares[addr]) < 1 for addr in shown)

    try:
        wait_for(agrees, "the shares match the counters")
    except AssertionError as error:
        raise AssertionError(f"{error}: shown {_shown(page)}, counted {shares}") from None

    # A drained replica gets no more requests.
    addr = sorted(before)[0]
    _unlock(page, "")
    row(page, addr).get_by_role("button").click()
    expect(row(page, addr)).to_have_attribute("data-state", "draining", timeout=TWO_SECONDS)
    page.wait_for_timeout(1000)
    drained = counters()
    visit(60)
    wait_for(lambda: sum(counters().values()) - sum(drained.values()) >= 60, "heartbeats report the visits")
    assert counters()[addr] == drained[addr]
    expect(row(page, addr).locator(".percent")).to_have_text("none")
    bench.expect_complaint("net::ERR_")
    hub.send(signal.SIGTERM)
    assert hub.child.wait(20) == 0


def _shown(page):
    cells = page.locator(".card[data-key=log] tbody tr").evaluate_all("rows => rows.map(r => [r.dataset.key, r.querySelector('.percent').textContent])")
    return {addr: float(text.split()[0]) for addr, text in cells if text.endswith("%")}
