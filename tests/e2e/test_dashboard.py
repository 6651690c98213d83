"""The dashboard in a real browser, on a real daemon: what a person does there, and what they see without reloading."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Column, Integer, MetaData, String, Table, insert

from batchd.db.engine import Database
from batchd.domain.access import Role
from batchd.store import tokens
from tests.support.browser import Wire, axe_source, chromium, serious_violations
from tests.support.daemon import Daemon, write_config
from tests.support.databases import open_database
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)
SECONDS = 30_000
PHONE = {"width": 390, "height": 800}
_TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
_SQUEEZED = """[...document.querySelectorAll('.name')]
  .filter(each => each.offsetHeight > 3 * each.offsetWidth).map(each => each.textContent)"""
DESKTOP = {"width": 1280, "height": 900}
PAGES = ("/", "/jobs", "/jobs/count", "/runs", "/dead-letter", "/queues", "/exports", "/incidents", "/audit")
ROWS = 60_000
LONG = "n" * 100
TURNING = "import time; [(print(n, chr(0x202E), 'turned'), time.sleep(1)) for n in range(60)]"
rows_table = Table("rows", MetaData(), Column("id", Integer, primary_key=True), Column("word", String, nullable=False))


class Site:
    """A daemon with its surface, a wire in front of it, and a token."""

    def __init__(self, config: Path, wire: Wire, token: str) -> None:
        self.config = config
        self.wire = wire
        self.token = token
        self.url = f"http://127.0.0.1:{wire.port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser, once for all tests."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running daemon and its surface."""
    folder = tmp_path_factory.mktemp("dashboard")
    app = open_database(f"sqlite:///{folder / 'app.db'}")
    make_rows(app)
    app.close()
    port = free_port()
    jobs: dict[str, Any] = {
        "count": {"kind": "count", "schedule": "every day at 03:00", "timezone": "Europe/Berlin"},
        "stumble": {"kind": "count", "to": 40, "stumble_at": 20, "retry": {"max_attempts": 1}},
        "sleep": {"kind": "sleep", "time": "10m"},
        LONG: {"kind": "fail", "message": "x" * 3000, "retry": {"max_attempts": 1}},
        "turned": {"kind": "command", "command": [sys.executable, "-uc", TURNING]},
    }
    sections = {
        "store": {"url": f"sqlite:///{folder / 'batchd.db'}"},
        "http": {"listen": f"127.0.0.1:{port}"},
        "databases": {"app": {"url": f"sqlite:///{folder / 'app.db'}"}},
        "jobs": jobs,
    }
    config = write_config(folder, sections)
    with config.open("a") as file:
        file.write('[exports.sources.people]\ndatabase = "app"\ntable = "rows"\ncolumns = ["id", "word"]\n')
    with Daemon(config) as daemon, Wire(port) as wire:
        daemon.ready(60)
        store = open_database(f"sqlite:///{folder / 'batchd.db'}")
        token = tokens.create(store, "ann", Role.OPERATOR).text
        store.close()
        yield Site(config, wire, token)


def make_rows(app: Database) -> None:
    """Make the table that is exported."""
    with app.writing() as connection:
        rows_table.create(connection)
        connection.execute(insert(rows_table), [{"id": n, "word": f"word {n}"} for n in range(ROWS)])


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A signed-in page; whatever its scripts complain of fails the test."""
    context = browser.new_context(viewport=DESKTOP, base_url=site.url)
    opened = context.new_page()
    opened.set_default_timeout(SECONDS)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    sign_in(opened, site)
    yield opened
    context.close()
    assert errors == []


def sign_in(page: Page, site: Site) -> None:
    """Sign in with the token."""
    page.goto("/")
    expect(page).to_have_url(re.compile("/login$"))
    page.get_by_label("Token").fill(site.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def never_reloaded(page: Page) -> None:
    """Mark the document, so that `is_the_same` can tell a reload."""
    page.evaluate("window.marked = true")


def is_the_same(page: Page) -> bool:
    """Whether nobody has reloaded."""
    return bool(page.evaluate("window.marked === true"))


def run_job(page: Page, job: str) -> str:
    """Run the job from its page; return the run's id, whose page is open then."""
    page.goto(f"/jobs/{job}")
    page.get_by_role("button", name="Run now", exact=True).click()
    page.wait_for_url(re.compile(r"/runs/\d+"))
    found = re.search(r"/runs/(\d+)", page.url)
    assert found
    return found[1]


def state(page: Page, word: str) -> None:
    """Wait until the run is in the state."""
    expect(page.locator(".title .state")).to_have_text(word, timeout=SECONDS)


def test_a_wrong_token_opens_nothing(browser: Browser, site: Site) -> None:
    """The form says so, and the page behind it stays shut."""
    with browser.new_context(base_url=site.url) as context:
        page = context.new_page()
        page.goto("/login")
        page.get_by_label("Token").fill("batchd_000000000000_" + "A" * 43)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not valid")
        page.goto("/jobs")
        expect(page).to_have_url(re.compile("/login\\?to=%2Fjobs$"))


def test_run_now_and_watch_it_to_the_end(page: Page) -> None:
    """The bar moves to the end, lines come, the state changes; nobody reloads."""
    page.goto("/jobs/count")
    page.get_by_text("Run now with other params").click()
    page.get_by_label("to", exact=True).fill("60")
    page.get_by_label("pause", exact=True).fill("100ms")
    page.get_by_role("button", name="Run now with these").click()
    page.wait_for_url(re.compile(r"/runs/\d+"))
    never_reloaded(page)
    bar = page.locator("progress").first
    expect(bar).to_have_attribute("max", "60", timeout=SECONDS)
    seen = wait_until(
        lambda: value if 5 < (value := bar.evaluate("bar => bar.value")) < 60 else 0, what="a bar at work", seconds=30
    )
    wait_until(lambda: bar.evaluate("bar => bar.value") > seen, what="a bar that moves", seconds=30)
    state(page, "succeeded")
    expect(page.locator("[data-part=done]").first).to_contain_text("60 of 60 (100 %)")
    expect(page.locator("#log li")).to_have_count(62, timeout=SECONDS)  # sixty numbers, begun and ended
    page.get_by_label("Search the log").fill("number")
    assert is_the_same(page)


def test_live_lines_hold_nothing_that_turns_text_around(page: Page) -> None:
    """A line that comes while somebody looks is as safe to read as one that was there before."""
    run_job(page, "turned")
    expect(page.locator("#log li").nth(4)).to_be_visible(timeout=SECONDS)
    lines = page.locator("#log .said").all_text_contents()
    assert [line for line in lines if "turned" in line]
    assert not [line for line in lines if "\u202e" in line]
    page.get_by_role("button", name="Cancel").click()


def test_params_that_cannot_be_are_told(page: Page) -> None:
    """The form comes back with what was written, and the reason."""
    page.goto("/jobs/count")
    page.get_by_text("Run now with other params").click()
    page.get_by_label("to", exact=True).fill("zero")
    page.get_by_role("button", name="Run now with these").click()
    expect(page.get_by_role("alert")).to_contain_text("to")
    expect(page.get_by_label("to", exact=True)).to_have_value("zero")


def test_a_failure_is_seen_and_retried_from_its_checkpoint(page: Page) -> None:
    """The error, the checkpoint, then a retry that goes on behind it."""
    run_id = run_job(page, "stumble")
    state(page, "failed")
    expect(page.locator("#error")).to_contain_text("stumbled, as asked")
    expect(page.locator("#checkpoint")).to_contain_text('"reached": 20')
    page.goto("/dead-letter")
    expect(page.locator("#dead")).to_contain_text("stumble")
    page.goto(f"/runs/{run_id}")
    page.get_by_role("button", name="Retry from checkpoint").click()
    state(page, "succeeded")
    expect(page.locator("#result")).to_contain_text("20")


def test_dead_letters_are_discarded_together(page: Page) -> None:
    """All that are selected are put away at once: these two, and what another test has left."""
    for _ in range(2):
        run_job(page, "stumble")
        state(page, "failed")
    page.goto("/dead-letter?job=stumble")
    page.get_by_label("Select page").check()
    page.get_by_role("button", name="Discard selected").click()
    expect(page.get_by_role("status").filter(has_text=re.compile("[2-9] runs are discarded"))).to_be_visible()
    expect(page.locator("#dead")).to_contain_text("Empty")


def test_a_dead_letter_comes_while_somebody_looks(page: Page) -> None:
    """It is listed, can be selected, and is counted in what "all" means; nobody reloads."""
    page.goto("/dead-letter?job=stumble")
    expect(page.locator("#live")).to_have_attribute("data-state", "on", timeout=SECONDS)
    never_reloaded(page)
    other = page.context.new_page()
    run_id = run_job(other, "stumble")
    state(other, "failed")
    expect(page.get_by_label(f"Run {run_id} of stumble")).to_be_visible(timeout=SECONDS)
    page.get_by_label("Select page").check()
    expect(page.get_by_label(f"Run {run_id} of stumble")).to_be_checked()
    rows = page.locator("#dead tbody tr").count()
    expect(page.locator("#bulk")).to_contain_text(f"All {rows} that match")
    expect(page.locator("#count")).to_contain_text("of stumble failed for good")
    assert is_the_same(page)


def test_cancel_pause_and_filter(page: Page) -> None:
    """A run is cancelled, a job and a queue are paused and resumed, and the URL says which runs are listed."""
    run_id = run_job(page, "sleep")
    state(page, "running")
    page.get_by_role("button", name="Cancel").click()
    state(page, "cancelled")
    page.goto("/jobs/count")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".title .state")).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.goto("/queues")
    page.get_by_role("button", name="Pause queue default").click()
    page.get_by_role("button", name="Resume queue default").click()
    expect(page.get_by_role("button", name="Pause queue default")).to_be_visible()
    page.goto("/runs")
    page.get_by_label("Job").fill("sleep")
    page.get_by_text("cancelled", exact=True).first.click()
    page.get_by_role("button", name="Filter").click()
    expect(page).to_have_url(re.compile("job=sleep.*state=cancelled"))
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    expect(page.locator("#runs")).to_contain_text(run_id)
    page.goto("/audit")
    for said in ("cancel", "pause", "resume"):
        expect(page.locator("main")).to_contain_text(said)


def test_what_no_event_tells_is_seen_all_the_same(page: Page) -> None:
    """Somebody else pauses a queue; whoever looks at it sees that within seconds, without reloading."""
    page.goto("/queues")
    never_reloaded(page)
    other = page.context.new_page()
    other.goto("/queues")
    other.get_by_role("button", name="Pause queue default").click()
    expect(page.get_by_role("button", name="Resume queue default")).to_be_visible(timeout=SECONDS)
    other.get_by_role("button", name="Resume queue default").click()
    expect(page.get_by_role("button", name="Pause queue default")).to_be_visible(timeout=SECONDS)
    assert is_the_same(page)


def test_an_export_is_downloaded_when_its_bar_has_moved(page: Page) -> None:
    """Start it, see its bar, download its file; nobody reloads."""
    page.goto("/exports")
    page.get_by_role("button", name="Export now").click()
    never_reloaded(page)
    link = page.get_by_role("link", name=re.compile("^Download")).first
    seen = page.locator("#exports progress, #exports a[download]").first
    expect(seen).to_be_visible(timeout=SECONDS)
    expect(link).to_be_visible(timeout=SECONDS)
    with page.expect_download() as download:
        link.click()
    content = Path(download.value.path()).read_text()
    assert content.count("\n") == ROWS + 1
    assert is_the_same(page)


def test_a_lost_connection_loses_no_event(page: Page, site: Site) -> None:
    """The wire is cut while a run logs; when it is mended every line is there, once, and the run's end as well."""
    page.goto("/jobs/count")
    page.get_by_text("Run now with other params").click()
    page.get_by_label("to", exact=True).fill("80")
    page.get_by_role("button", name="Run now with these").click()
    page.wait_for_url(re.compile(r"/runs/\d+"))
    never_reloaded(page)
    expect(page.locator("#log li").nth(8)).to_be_visible(timeout=SECONDS)
    site.wire.cut()
    expect(page.locator("#live")).to_have_attribute("data-state", "lost", timeout=SECONDS)
    page.wait_for_timeout(2_500)
    site.wire.mend()
    state(page, "succeeded")
    expect(page.locator("#log li")).to_have_count(82, timeout=SECONDS)
    numbers = page.locator("#log li").evaluate_all("items => items.map((item) => item.dataset.line)")
    assert len(set(numbers)) == len(numbers)
    assert is_the_same(page)


def test_everything_works_without_a_script(browser: Browser, site: Site) -> None:
    """Forms sign in, run and show; a reload shows what became of it, and a link on another site's page leads here."""
    with browser.new_context(base_url=site.url, java_script_enabled=False) as context:
        page = context.new_page()
        sign_in(page, site)
        page.goto("/jobs/count")
        page.get_by_role("button", name="Run now", exact=True).click()
        for _ in range(100):
            if "20 of 20" in page.locator("#progress").inner_text():
                break
            page.wait_for_timeout(200)
            page.reload()
        assert page.locator(".title .state").inner_text() == "succeeded"
        expect(page.locator("#progress")).to_contain_text("20 of 20")
        page.goto(f"data:text/html,<a href='{site.url}/jobs/count'>in a mail</a>")
        page.get_by_text("in a mail").click()
        expect(page.get_by_role("button", name="Run now", exact=True)).to_be_visible()


def test_pages_fit_a_phone_and_a_screen_reader(browser: Browser, site: Site) -> None:
    """No page is wider than a phone, and axe has no serious complaint about any of them, light or dark."""
    axe = axe_source()
    with browser.new_context(base_url=site.url, viewport=PHONE, bypass_csp=True) as context:
        page = context.new_page()
        page.goto("/login")
        assert serious_violations(page, axe) == []
        sign_in(page, site)
        page.goto("/exports")
        page.get_by_role("button", name="Export now").click()
        run_job(page, LONG)
        state(page, "failed")
        run_id = run_job(page, "stumble")
        state(page, "failed")
        for path in (*PAGES, f"/jobs/{LONG}", f"/runs/{run_id}"):
            page.set_viewport_size(DESKTOP)
            page.goto(path)
            wide = page.evaluate(_TOO_WIDE)
            assert wide <= 0, f"{path} is {wide} px wider than a desk's screen"
            page.set_viewport_size(PHONE)
            page.goto(path)
            wide = page.evaluate(_TOO_WIDE)
            assert wide <= 0, f"{path} is {wide} px wider than a phone"
            if path == "/incidents":
                expect(page.get_by_role("button", name="Close").first).to_be_visible()
            assert page.evaluate(_SQUEEZED) == [], f"{path} has names that stand upright"
            place = page.locator(".nav [aria-current]").bounding_box()
            assert place is not None
            assert place["x"] + place["width"] <= PHONE["width"], f"{path} does not show where one is"
            page.emulate_media(color_scheme="light")
            assert serious_violations(page, axe) == [], path
            page.emulate_media(color_scheme="dark")
            assert serious_violations(page, axe, "color-contrast") == [], f"{path}, dark"


def test_the_keyboard_alone_suffices(page: Page) -> None:
    """The first stop skips to the content; a job is found and run with Tab and Enter."""
    page.goto("/jobs/count")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Run now":
            break
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/runs/\d+"))
