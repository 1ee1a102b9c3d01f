"""Visits at a steady, bounded rate from a few threads, each on a new connection. Every failure is recorded."""

import http.client
import threading
import time
from urllib.parse import urlsplit

from .harness import Failed, check, say

WORKERS = 6
RATE = 60  # visits per second, all workers together
TIMEOUT = 10  # seconds per visit, as for a patient client
MOST_SECONDS = 300  # after this long the load stops by itself, and the case fails


def get(url, method="GET", body=None, timeout=TIMEOUT, headers=None):
    """Returns (status, headers, body) of one request on a new connection. Raises OSError if there is no response."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        path = parts.path or "/"
        connection.request(method, f"{path}?{parts.query}" if parts.query else path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    except http.client.HTTPException as error:
        raise OSError(repr(error)) from error
    finally:
        connection.close()


class Load:
    """`with Load(url) as load: …`, then `load.none_failed(…)`."""

    def __init__(self, *urls):
        self.urls = urls
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.overran = False
        self.done, self.slowest = 0, 0.0
        self.failures, self.numbers = [], []
        self.threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(WORKERS)]

    def __enter__(self):
        self.started = time.monotonic()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join(TIMEOUT + 5)

    def _work(self, worker):
        step = WORKERS / RATE
        due = time.monotonic() + step * worker / WORKERS
        turn = worker
        while not self.stopped.is_set():
            if time.monotonic() - self.started > MOST_SECONDS:
                self.overran = True
                return
            self.stopped.wait(max(0.0, due - time.monotonic()))
            # A late worker does not catch up, so the load stays bounded.
            due = max(due + step, time.monotonic())
            self._visit(self.urls[turn % len(self.urls)])
            turn += 1

    def _visit(self, url):
        began = time.monotonic()
        try:
            status, _, body = get(url)
            problem = None if status == 200 else f"{status} {body[:200]!r}"
        except OSError as error:
            body, problem = b"", repr(error)
        took = time.monotonic() - began
        with self.lock:
            self.done += 1
            self.slowest = max(self.slowest, took)
            if problem:
                self.failures.append(f"after {began - self.started:.1f} s: {url}: {problem} ({took:.1f} s)")
            else:
                self.numbers.append(body.strip())

    def none_failed(self, least=50):
        seconds = time.monotonic() - self.started
        say(f"{self.done} visits in {seconds:.0f} s, {len(self.failures)} failed, slowest {self.slowest * 1000:.0f} ms")
        if self.failures:
            shown = "\n      ".join(self.failures[:5])
            raise Failed(f"{len(self.failures)} of {self.done} visits failed\n      {shown}")
        check(not self.overran, f"the load stopped by itself after {MOST_SECONDS} s: the rest of the case was not under load")
        check(self.done >= least, f"only {self.done} visits were made")

    def no_number_is_missing(self, tolerance=0):
        """Each visit has a number of its own, and they follow one another but for `tolerance` of them."""
        numbers = sorted(map(int, self.numbers))
        check(len(set(numbers)) == len(numbers), "a number was given twice")
        missing = numbers[-1] - numbers[0] + 1 - len(numbers)
        check(missing <= tolerance, f"{missing} numbers are missing from {numbers[0]} to {numbers[-1]}")
