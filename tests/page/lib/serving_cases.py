"""How the files are served, and what the content security policy blocks."""

from playwright.sync_api import expect


def test_files_are_served_with_a_strict_policy_and_by_etag(bench):
    status, headers = bench.status("GET", "/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    for name in ("script-src", "style-src", "img-src", "connect-src"):
        assert policy[name] == "'self'", policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"
    tag = headers["etag"]
    status, headers = bench.status("GET", "/", If_None_Match=tag)
    assert (status, headers["etag"]) == (304, tag)
    assert bench.status("GET", "/", If_None_Match='"other"')[0] == 200
    assert bench.status("HEAD", "/page/app.js")[0] == 200
    assert bench.status("POST", "/")[0] == 405
    assert bench.status("GET", "/page/../Cargo.toml")[0] == 404


def test_a_reload_fetches_no_file_twice(bench):
    if bench.files:
        return  # files from the checkout are not cached
    page = bench.page()
    page.reload()
    expect(page.locator("#status-text")).to_have_text("Live")
    sizes = page.evaluate(
        "performance.getEntriesByType('resource').filter(e => /[.](js|css)$/.test(e.name)).map(e => [e.name, e.transferSize, e.encodedBodySize])"
    )
    # A revalidated file counts as 300 bytes, for its headers.
    assert len(sizes) >= 8 and all(sent < size or size < 300 for _, sent, size in sizes), sizes


def test_the_policy_blocks_foreign_scripts_markup_and_hosts(bench):
    page = bench.page()
    for text in ("Content Security Policy", "Trusted", "Refused", "Failed to load", "violates"):
        bench.expect_complaint(text)
    ran = page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.append('window.ran = true');
            document.head.append(script);
            return window.ran === true;
        }"""
    )
    assert not ran
    refused = page.evaluate("() => { try { document.body.innerHTML = '<b>x</b>'; return 'done' } catch (error) { return error.name } }")
    assert refused == "TypeError", refused
    reached = page.evaluate("() => fetch('http://127.0.0.1:9/').then(() => 'reached', () => 'refused')")
    assert reached == "refused"
    bench.complaints.clear()  # the browser reports the attempt on port 9 as a request too


def test_a_page_of_another_site_changes_nothing(bench):
    bench.members.join("log")
    body = b'{"Name":"evil","Addr":"127.0.0.1:9"}'
    # What a browser sends for fetch(…, {mode: 'no-cors'}) from another site: no preflight, plain text.
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert bench.status("POST", "/services", body, Content_Type="text/plain", **headers)[0] == 403, headers
    assert "evil" not in bench.catalog()
    assert bench.status("POST", "/services", body, Content_Type="text/plain")[0] == 200
