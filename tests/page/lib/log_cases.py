"""The log tail, through the registry's relay."""

import json
import socket

from playwright.sync_api import expect

from .registry import wait_for


def _logs(bench, count):
    return [bench.members.join("log", log_id=f"log-{n}")[0] for n in range(count)]


def _following(page, count):
    expect(page.locator("#log-state")).to_have_text(f"following {count} log instance{'' if count == 1 else 's'}")


def test_entries_of_all_log_instances_are_shown_as_text(bench):
    logs = _logs(bench, 3)
    page = bench.page()
    _following(page, 3)
    evil = "<b>bold</b>\n\ndata: forged \u202e <script>alert(1)</script>"
    for n, log in enumerate(logs):
        bench.members.call(log.say(f"{evil} {n}", source="<i>s</i>"))
    for n in range(3):
        expect(page.locator("#log li", has_text=f"</script> {n}").locator(".msg")).to_have_text(f"{evil} {n}")
    expect(page.locator("#log li")).to_have_count(3)
    assert page.locator("#log b, #log i, #log script").count() == 0
    bench.members.call(logs[0].say("claimed", source=None, client="10.0.0.7", claimed="visit</b>"))
    expect(page.locator("#log li", has_text="claimed").locator(".from")).to_contain_text('10.0.0.7 "visit</b>"')
    # New log instances are followed, and deregistered ones are dropped.
    bench.members.join("log", log_id="log-new")
    _following(page, 4)
    bench.members.call(bench.members.all[-1].say("from the new one"))
    expect(page.locator("#log li").last).to_contain_text("log-new")
    bench.members.leave(logs[0])
    _following(page, 3)


def test_the_filter_asks_the_log_instances(bench):
    [log] = _logs(bench, 1)
    page = bench.page()
    _following(page, 1)
    for text in ("apple", "pear", "apple pie"):
        bench.members.call(log.say(text))
    expect(page.locator("#log li")).to_have_count(3)
    page.get_by_label("Filter").fill("apple")
    expect(page.locator("#log li")).to_have_count(2)
    wait_for(lambda: any(query.get("contains") == ["apple"] for query in log.tail_queries), "the filter is passed on")
    _following(page, 1)
    # The stream resumes after the last entry.
    assert log.tail_queries[-1]["cursor"] == ["log-0:3"], log.tail_queries
    for text in ("plum", "apple juice"):
        bench.members.call(log.say(text))
    expect(page.locator("#log li")).to_have_count(3)
    expect(page.locator("#log li").last).to_contain_text("apple juice")


def test_a_pause_stops_the_stream(bench):
    [log] = _logs(bench, 1)
    page = bench.page()
    _following(page, 1)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#log-state")).to_have_text("paused")
    wait_for(lambda: not log._tails, "the stream is closed")
    page.get_by_role("button", name="Resume").click()
    _following(page, 1)


def test_a_flood_is_bounded_and_counted(bench):
    [log] = _logs(bench, 1)
    page = bench.page()
    _following(page, 1)

    async def flood():
        for n in range(5000):
            await log.say(f"entry {n}")

    bench.members.call(flood())
    expect(page.locator("#log li").last).to_contain_text("entry 4999")
    assert page.locator("#log li").count() <= 300
    at_end = page.locator("#log").evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight")
    assert at_end < 24, at_end


def test_relays_are_bounded(bench):
    bench.members.join("log", log_id="log-1")
    open_ones = []
    try:
        for _ in range(8):
            stream = socket.create_connection(("127.0.0.1", bench.registry.port))
            open_ones.append(stream)
            stream.sendall(b"GET /log/tail HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b" 200 " in stream.recv(4096)
        status, headers = bench.status("GET", "/log/tail")
        assert (status, headers["content-type"], headers["retry-after"]) == (429, "application/problem+json", "10")
        open_ones.pop().close()
        wait_for(lambda: _opens(bench.registry.port), "there is room again")
    finally:
        for stream in open_ones:
            stream.close()


def _opens(port):
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(b"GET /log/tail HTTP/1.1\r\nhost: localhost\r\n\r\n")
        return b" 200 " in stream.recv(4096)


def test_a_log_instance_without_a_tail_does_not_affect_the_others(bench):
    # Members of that name without a tail answer 404.
    bench.members.join("log", 2)
    [good] = _logs(bench, 1)
    page = bench.page()
    expect(page.locator("#log-state")).to_have_text("following 1 of 3 log instances")
    bench.members.call(good.say("still here"))
    expect(page.locator("#log li")).to_have_count(1)


def test_the_relay_resumes_after_the_last_entry_when_a_stream_breaks(bench):
    [log] = _logs(bench, 1)
    page = bench.page()
    _following(page, 1)
    bench.members.call(log.say("before"))
    expect(page.locator("#log li")).to_have_count(1)

    async def cut():
        for writer in list(log._connections):
            writer.transport.abort()

    bench.members.call(cut())
    wait_for(lambda: len(log.tail_queries) > 1, "the relay reconnects")
    assert log.last_ids[-1] == "log-0:1", (log.last_ids, json.dumps(log.tail_queries))
    bench.members.call(log.say("after"))
    expect(page.locator("#log li")).to_have_count(2)
