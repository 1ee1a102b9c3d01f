"""The catalogue on the page: instances, their states and their shares."""

import re
import signal
import time

from playwright.sync_api import expect

from .bench import TWO_SECONDS, nodes, row, rows
from .registry import wait_for


def test_instances_appear_and_vanish_within_two_seconds(bench):
    bench.members.join("log", 2)
    page = bench.page()
    expect(rows(page)).to_have_count(2)
    [third] = bench.members.join("log")
    expect(row(page, third.addr)).to_be_visible(timeout=TWO_SECONDS)
    expect(nodes(page)).to_have_count(3, timeout=TWO_SECONDS)
    expect(page.locator("#spokes")).to_have_attribute("aria-label", re.compile("log 3 instances"))
    bench.members.leave(third)
    expect(row(page, third.addr)).to_have_count(0, timeout=TWO_SECONDS)
    expect(nodes(page)).to_have_count(2, timeout=TWO_SECONDS)
    expect(page.locator("#events li").first).to_contain_text(f"log {third.addr} deregistered")
    # One that dies stays until its heartbeats have failed, and vanishes from the page soon after.
    dead = bench.members.all[0]
    bench.members.call(dead.die())
    live = lambda: [one["Addr"] for one in bench.catalog()["log"] if one["State"] != "removed"]  # noqa: E731
    wait_for(lambda: dead.addr not in live(), "the registry removes it")
    expect(row(page, dead.addr)).to_have_count(0, timeout=TWO_SECONDS)
    expect(page.locator("#events li.bad").first).to_contain_text(f"log {dead.addr} removed")


def wait_for_samples(members):
    """Waits until the page has samples of each instance from after the last change of the set that takes requests. Shares
    count from there. The registry reports loads once a second; there are two heartbeats in that time."""
    before = [one.heartbeats for one in members]
    wait_for(lambda: all(one.heartbeats > count + 5 for one, count in zip(members, before)), "heartbeats")


def test_shares_match_the_counters(bench):
    members = bench.members.join("log", 3)
    page = bench.page()
    expect(page.locator("caption")).to_have_text("no recent requests")
    wait_for_samples(members)
    # All at the same time, so that the counters change between two heartbeats of each.
    for one, requests in zip(members, (2500, 1500, 1000)):
        one.requests = requests
    for one, share in zip(members, ("50.0 %", "30.0 %", "20.0 %")):
        expect(row(page, one.addr).locator(".percent")).to_have_text(share)
    expect(page.locator("caption")).to_have_text(re.compile(r"^5,000 requests since \d\d:\d\d:\d\d; even share 33.3 %$"))
    # Far outside of the expected range, and marked so.
    expect(row(page, members[0].addr).locator(".bar")).to_have_class(re.compile(r"\boff\b"))
    parts = row(page, members[0].addr).locator(".fill").evaluate("e => getComputedStyle(e).getPropertyValue('--part')")
    assert float(parts) == 0.75, parts  # half of all requests, on a scale that ends at two thirds
    for one, in_flight in zip(members, (7, 0, 1)):
        one.in_flight = in_flight
        expect(row(page, one.addr).locator(".open")).to_have_text(str(in_flight))
    # Another instance takes requests now, so counting starts again.
    [fourth] = bench.members.join("log")
    expect(page.locator("caption")).to_have_text("no recent requests")
    wait_for_samples([*members, fourth])
    for one in bench.members.all:
        one.requests += 100
    for one in bench.members.all:
        expect(row(page, one.addr).locator(".percent")).to_have_text("25.0 %")
        expect(row(page, one.addr).locator(".bar")).not_to_have_class(re.compile(r"\boff\b"))


def test_shares_are_taken_between_common_times(bench):
    page = bench.page()
    found = page.evaluate(
        """async () => {
            const { Model } = await import('/page/model.js');
            const model = new Model();
            const time = (millis) => new Date(1_800_000_000_000 + millis).toISOString();
            const addrs = ['a:1', 'a:2', 'a:3'];
            const instance = (Addr) => ({ Name: 'x', Addr, State: 'passing', Registered: time(0), Reasons: [] });
            model.snapshot({ Revision: '1.1', Services: { x: addrs.map(instance) } }, 1_800_000_000_000);
            // Three instances at 100, 100 and 200 requests/s, with heartbeats every 5 s at different times.
            for (let t = 0; t < 60_000; t += 5000) {
                addrs.forEach((addr, i) => {
                    const at = t + 1600 * i;
                    model.load('x', addr, { Requests: at * [0.1, 0.1, 0.2][i], InFlight: 1, LastHeartbeat: time(at) });
                });
            }
            const { total, of, since } = model.spread('x', 1_800_000_060_000);
            // The counter of a restarted instance starts at 0.
            model.load('x', 'a:1', { Requests: 3, InFlight: 0, LastHeartbeat: time(60_000) });
            const after = model.spread('x', 1_800_000_061_000);
            return {
                shares: addrs.map((addr) => of.get(addr).share),
                rates: addrs.map((addr) => of.get(addr).rate),
                since: since - 1_800_000_000_000,
                total,
                restarted: after.of.get('a:1').share,
            };
        }"""
    )
    assert [round(share, 9) for share in found["shares"]] == [0.25, 0.25, 0.5], found
    assert [round(rate, 9) for rate in found["rates"]] == [100, 100, 200], found
    assert found["since"] == 3200 and round(found["total"], 6) == 400 * (55.0 - 3.2), found
    assert found["restarted"] is None, found


def test_the_even_share_is_among_instances_that_report(bench):
    reporting = bench.members.join("log", 2)
    [silent] = bench.members.join("log")
    silent.reports_load = False
    page = bench.page()
    expect(rows(page)).to_have_count(3)
    wait_for_samples(reporting)
    for one in reporting:
        one.requests = 5000
    for one in reporting:
        expect(row(page, one.addr).locator(".percent")).to_have_text("50.0 %")
        expect(row(page, one.addr).locator(".bar")).not_to_have_class(re.compile(r"\boff\b"))
    expect(row(page, silent.addr).locator(".percent")).to_have_text("–")
    expect(page.locator("caption")).to_contain_text("even share 50.0 % among those that report")


def test_old_samples_expire(bench):
    page = bench.page()
    found = page.evaluate(
        """async () => {
            const { Model } = await import('/page/model.js');
            const model = new Model();
            const begin = 1_800_000_000_000;
            const time = (millis) => new Date(begin + millis).toISOString();
            const instance = (Addr) => ({ Name: 'x', Addr, State: 'passing', Registered: time(0), Reasons: [] });
            model.snapshot({ Revision: '1.1', Services: { x: ['a:1', 'a:2'].map(instance) } }, begin);
            for (let t = 0; t <= 60_000; t += 5000) {
                model.load('x', 'a:1', { Requests: t / 10, InFlight: 1, LastHeartbeat: time(t) });
                if (t <= 30_000) model.load('x', 'a:2', { Requests: t / 10, InFlight: 1, LastHeartbeat: time(t) });
            }
            return [50_000, 50_001].map((t) => {
                const { of, silent } = model.spread('x', begin + t);
                return [of.get('a:1').rate, of.get('a:2').rate, of.get('a:1').share, of.get('a:2').share, silent];
            });
        }"""
    )
    assert found == [[100, 100, 0.5, 0.5, 0], [100, None, 1, None, 1]], found


def test_a_long_snapshot_is_read_in_pieces(bench):
    page = bench.page()
    found = page.evaluate(
        """async () => {
            const { Parser } = await import('/page/stream.js');
            let got = 0;
            const parser = new Parser((type, data) => { got = data.length; });
            const piece = 'x'.repeat(64 * 1024);
            const began = performance.now();
            parser.push('data: ');
            for (let i = 0; i < 1024; i += 1) parser.push(piece);
            parser.push('\\n\\n');
            return [got, performance.now() - began];
        }"""
    )
    assert found[0] == 64 * 1024 * 1024, found
    # Searching everything received so far at each piece would take half a minute.
    assert found[1] < 10_000, found


def test_members_without_load_and_with_strange_ids_are_shown(bench):
    [silent] = bench.members.join("log")
    silent.reports_load = False
    evil = "<img/src=x/onerror=alert(1)>"  # ids have no spaces, and this needs none
    [strange] = bench.members.join("visit", Id=evil, Meta={"note": "<script>alert(2)</script>"})
    page = bench.page()
    expect(row(page, silent.addr).locator(".heartbeat")).to_have_text(re.compile(r"^\d+ s$"))
    expect(row(page, silent.addr).locator(".rate")).to_have_text("–")
    expect(row(page, silent.addr).locator(".percent")).to_have_text("–")
    expect(page.locator(".card[data-key=log] caption")).to_have_text("requests unknown: no instance reports them")
    expect(row(page, strange.addr).locator(".id")).to_have_text(evil)
    assert page.locator("main img").count() == 0


def test_a_required_service_without_instances_is_marked(bench):
    [visit] = bench.members.join("visit", requires=["log"])
    page = bench.page()
    card = page.locator('.card[data-key="log"]')
    expect(card).to_have_class(re.compile("vacant"))
    expect(card.locator(".facts")).to_have_text("no instances")
    expect(page.locator("#summary")).to_contain_text("1 service required but absent")
    assert page.title().startswith("⚠")
    [log] = bench.members.join("log")
    expect(card).not_to_have_class(re.compile("vacant"))
    expect(page).to_have_title("2 in 2 · Hubspoke")
    bench.members.leave(log)
    expect(card).to_have_class(re.compile("vacant"))
    # Nobody requires it any more.
    bench.members.leave(visit)
    expect(card).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()
    # One that is required later is marked, too, and one that nobody requires vanishes with its last instance.
    [visit] = bench.members.join("visit", requires=["log"])
    expect(card).to_have_class(re.compile("vacant"))
    bench.members.leave(visit)
    expect(page.locator(".card")).to_have_count(0)
    expect(page).to_have_title("0 in 0 · Hubspoke")


def test_find_filters_the_tables(bench):
    logs = bench.members.join("log", 2)
    bench.members.join("visit", 2)
    page = bench.page()
    expect(rows(page)).to_have_count(4)
    page.get_by_label("Find").fill(logs[1].addr)
    expect(page.locator("tbody tr:visible")).to_have_count(1)
    expect(page.locator('.card[data-key="visit"]')).to_be_hidden()
    page.get_by_label("Find").fill("VISIT")
    expect(page.locator("tbody tr:visible")).to_have_count(2)
    page.get_by_label("Find").fill("")
    expect(page.locator("tbody tr:visible")).to_have_count(4)


def test_a_silent_registry_makes_the_page_stale_and_it_recovers(bench):
    [member] = bench.members.join("log")
    page = bench.page()
    expect(row(page, member.addr)).to_be_visible()
    bench.registry.send(signal.SIGSTOP)
    expect(page.locator("#status-text")).to_have_text("Stale", timeout=30_000)
    expect(page.locator("#stale-text")).to_contain_text(re.compile(r"Last update: \d\d:\d\d:\d\d.*silent for"))
    expect(page.locator("#stale-age")).to_have_text(re.compile(r"^\d+ s ago$"))
    expect(page.locator("#announcement")).to_have_text(re.compile("^registry disconnected .silent for"))
    assert page.title().startswith("⚠")
    expect(row(page, member.addr)).to_be_visible()
    bench.registry.send(signal.SIGCONT)
    expect(page.locator("#announcement")).to_contain_text("registry reconnected")
    expect(page.locator("#status-text")).to_have_text("Live")
    expect(page.locator("#stale")).to_be_hidden()
    expect(page.locator("#events")).to_contain_text("registry disconnected")
    expect(page.locator("#events")).to_contain_text("registry reconnected")
    [later] = bench.members.join("log")
    expect(row(page, later.addr)).to_be_visible(timeout=TWO_SECONDS)


def test_a_restarted_registry_is_followed(bench):
    [before] = bench.members.join("log")
    page = bench.page()
    expect(row(page, before.addr)).to_be_visible()
    bench.expect_complaint("net::ERR_")
    bench.replace_registry()
    expect(page.locator("#events")).to_contain_text("registry restarted")
    expect(page.locator("#status-text")).to_have_text("Live")
    expect(row(page, before.addr)).to_have_count(0)
    bench.members.register(before)
    expect(row(page, before.addr)).to_be_visible(timeout=TWO_SECONDS)


def test_open_pages_do_not_delay_the_registrys_shutdown(bench):
    bench.members.join("log", log_id="log-1")
    page = bench.page()
    expect(page.locator("#log-state")).to_have_text("following 1 log instance")
    bench.expect_complaint("net::ERR_")
    began = time.monotonic()
    bench.registry.send(signal.SIGTERM)
    assert bench.registry.child.wait(20) == 0
    assert time.monotonic() - began < 5
    expect(page.locator("#status-text")).to_have_text("Stale", timeout=TWO_SECONDS)


def test_events_are_parsed_however_they_are_split(bench):
    page = bench.page()
    found = page.evaluate(
        """async () => {
            const { Parser } = await import('/page/stream.js');
            const text = ': hi\\n\\nevent: a\\r\\nid: 7\\r\\ndata: one\\r\\ndata:two\\r\\n\\r\\ndata: {"x": "ü: y"}\\n\\n:\\n\\nevent: none\\n\\ndata\\n\\n';
            const all = [];
            for (let size = 1; size <= text.length; size += 1) {
                const got = [];
                const parser = new Parser((...event) => got.push(event));
                for (let i = 0; i < text.length; i += size) parser.push(text.slice(i, i + size));
                all.push(JSON.stringify(got));
            }
            return [...new Set(all)];
        }"""
    )
    assert found == ['[["a","one\\ntwo","7"],["message","{\\"x\\": \\"ü: y\\"}",null],["message","",null]]'], found
