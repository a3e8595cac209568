"""A real Chromium, the distribution's, for tests of what people see.

Where the environment says `CI`, not having it is a failure: there nothing may go untested.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import axe_playwright_python
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.missing import missing

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
# A microphone that beeps and needs no permission; audio that plays without a click before.
ARGUMENTS = [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
]
# The one without windows, menus and profiles needs a fourth less of the processor's time.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser")
WHOLE_PROGRAMS = PROGRAMS[1:]  # only these install pages
PATIENCE_MS = 60_000  # a machine may be busy with other tests
ENDED_MEANWHILE = r"404 .*/chat/detached/"
"""Error of a page that was opened while an answer was being written: the answer had ended before
the page followed it."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; the test is skipped where Chromium is not installed."""
    program = _installed(PROGRAMS)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # its sandbox wants a user that is not root, whom containers and build machines have not
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


def installability_errors(address: str, profile: Path) -> list[str]:
    """Returns what keeps the page of an address from being installed as an application. The whole
    browser is asked, with a profile, in which alone pages are installed; it runs in a process of
    its own, beside the other browser of the tests."""
    program = _installed(WHOLE_PROGRAMS)
    command = [sys.executable, "-c", _INSTALLABILITY, program, address, str(profile)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return list(json.loads(found.stdout))


_INSTALLABILITY = """
import json, sys
from playwright.sync_api import sync_playwright

program, address, profile = sys.argv[1:]
with sync_playwright() as playwright:
    context = playwright.chromium.launch_persistent_context(
        profile, executable_path=program, headless=False, args=["--no-sandbox", "--headless=new"]
    )
    page = context.pages[0]
    page.goto(address)
    found = context.new_cdp_session(page).send("Page.getInstallabilityErrors")
    print(json.dumps([one["errorId"] for one in found["installabilityErrors"]]))
    context.close()
"""


def _installed(programs: Sequence[str]) -> str:
    """The path of the first of these programs that is installed."""
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        missing("Chromium is not installed; scripts/install_test_tools.sh does it.")
    return program


@contextmanager
def tab(
    browser: Browser,
    address: str,
    expected_error: str = "nothing",
    locale: str = "en-US",
    service_workers: Literal["allow", "block"] = "block",
) -> Iterator[Page]:
    """A tab of a browser that knows nothing yet; errors but the expected fail the test. An error is
    a text and the address that it is about. Requests that a service worker sends could not be
    routed by a test."""
    size = {"width": 1280, "height": 800}
    context = browser.new_context(
        viewport=size, base_url=address, locale=locale, service_workers=service_workers
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: said.type == "error" and errors.append(_error_of(said)))
    yield page
    context.close()
    unexpected = [one for one in errors if not re.search(expected_error, one)]
    assert unexpected == [], unexpected


def _error_of(said: ConsoleMessage) -> str:
    return f"{said.text} {said.location['url']}"


def accessibility_violations(page: Page) -> dict[str, list[str]]:
    """Breaches of the rules of axe-core in what the page shows: by rule, the elements."""
    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
    # The page's policy lets no page script make code of a text; the protocol of the browser may.
    session = page.context.new_cdp_session(page)
    session.send("Runtime.evaluate", {"expression": f"{axe}; 0"})
    session.detach()
    found = page.evaluate(
        "axe.run().then(({ violations }) => violations.map(({ id, nodes }) =>"
        " [id, nodes.map(({ html }) => html.slice(0, 160))]))"
    )
    return dict(found)


def screenshot(page: Page, name: str) -> None:
    """Leaves a screenshot among the tests' artefacts, in `build/screenshots`."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
