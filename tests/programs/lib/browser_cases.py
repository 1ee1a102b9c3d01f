"""Django's admin and a single-page app in a real browser, by host and below a prefix that is stripped."""

from playwright.sync_api import expect

expect.set_options(timeout=20_000)


def test_django_in_a_browser_by_host(bench):
    with bench.django("admin") as platform:
        platform.passes("/", "hello from django", host="admin.localhost")
        uses_the_admin(bench, f"http://admin.localhost:{platform.port}", "")


def test_django_in_a_browser_below_a_prefix(bench):
    with bench.django("office", prefix="/office") as platform:
        platform.passes("/office/", "hello from django")
        uses_the_admin(bench, f"http://{platform.gateway}", "/office")


def uses_the_admin(bench, origin, prefix):
    base = origin + prefix
    with bench.page() as page:
        # Without a session, the admin redirects to its login.
        page.goto(f"{base}/admin/")
        expect(page).to_have_url(f"{base}/admin/login/?next={prefix}/admin/")
        # Its style sheet and scripts are there.
        expect(page.locator("#header")).to_have_css("background-color", "rgb(65, 118, 144)")
        page.fill("#id_username", "admin")
        page.fill("#id_password", "for a test")
        page.click("input[type=submit]")
        expect(page).to_have_url(f"{base}/admin/")
        expect(page.locator("#content h1")).to_have_text("Site administration")
        # The cookies are those of this program and of no other behind the gateway.
        paths = {cookie["name"]: cookie["path"] for cookie in page.context.cookies()}
        assert paths == {"csrftoken": f"{prefix}/", "sessionid": f"{prefix}/"}, paths
        # A form with its token, a redirect after it, and a message of the next page.
        page.click("a[href$='/auth/group/add/']")
        page.fill("#id_name", "Editors")
        page.click("input[name=_save]")
        expect(page).to_have_url(f"{base}/admin/auth/group/")
        expect(page.locator(".messagelist .success")).to_contain_text("Editors")
        page.click("#logout-form button")
        expect(page.locator("#content h1")).to_have_text("Logged out")


def test_a_single_page_app_by_host(bench):
    bench.build_spa("/")
    with bench.run("A built single-page app", "app") as platform, bench.page() as page:
        platform.passes("/", "<title>App</title>", host="app.localhost")
        base = f"http://app.localhost:{platform.port}/"
        page.goto(base)
        looks_right(page, "Home")
        page.click("a")
        expect(page).to_have_url(f"{base}orders/7")
        looks_right(page, "Page", "loaded for orders/7")
        # An address that only the browser knows, from the server.
        page.reload()
        looks_right(page, "Page", "loaded for orders/7")
        page.go_back()
        looks_right(page, "Home")


def test_a_single_page_app_below_a_prefix(bench):
    bench.build_spa("./")
    with bench.run("A built single-page app", "panel") as platform, bench.page() as page:
        platform.passes("/panel/", "<title>App</title>")
        base = f"http://{platform.gateway}/panel/"
        page.goto(base)
        looks_right(page, "Home")
        page.click("a")
        expect(page).to_have_url(f"{base}orders/7")
        looks_right(page, "Page", "loaded for orders/7")


def looks_right(page, title, text=""):
    expect(page.locator("h1")).to_have_text(title)
    expect(page.locator("output")).to_have_text(text)
    expect(page.locator("h1")).to_have_css("color", "rgb(1, 2, 3)")
