"""The web page for readers without sight or pointer: axe-core finds nothing in any view."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import PATIENCE_MS, accessibility_violations
from tests.serving import Served, serve

SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "dark phone": {"viewport": {"width": 375, "height": 700}, "color_scheme": "dark"},
}
TABLES = {
    "compare": "textarea",
    "status": "tbody.models tr",
    "operations": "table.operations",
    "administration": "h1",
}


@pytest.fixture(scope="module")
def folder_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose page offers everything: downloads, tools, administration."""
    environment = {"LLM_BACKEND_MCP_API": "true"}
    folder = tmp_path_factory.mktemp("folder")
    with serve(folder, "--serve-models-folder", environment=environment) as served:
        yield served


@pytest.fixture(params=SCREENS)
def page(browser: Browser, folder_server: Served, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(
        base_url=folder_server.address,
        service_workers="block",
        reduced_motion="reduce",  # colours are judged as they end
        **SCREENS[request.param],
    )
    context.set_default_timeout(PATIENCE_MS)
    one = context.new_page()
    one.goto("/")
    expect(one.locator("#model")).to_have_value("builtin")
    yield one
    context.close()


def test_chats_and_their_options_are_accessible(page):
    found = {"greeting": accessibility_violations(page)}
    page.get_by_label("Message").fill("How do I load a real model?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    found["chat"] = accessibility_violations(page)
    page.get_by_role("button", name="Options").click()
    for name in ("Prompts of your own", "More parameters"):
        page.locator("summary", has_text=name).click()
    page.get_by_label("Response format").select_option("json_schema")
    page.get_by_label("Name", exact=True).fill("short")
    page.get_by_label("Text", exact=True).fill("In one sentence:")
    page.get_by_role("button", name="Save the prompt").click()
    found["options"] = accessibility_violations(page)
    page.keyboard.press("Escape")
    page.get_by_label("Message").fill("/")
    expect(page.locator("#suggestions li")).to_have_count(1)
    found["prompts"] = accessibility_violations(page)

    assert {name: one for name, one in found.items() if one} == {}


def test_lists_of_chats_are_accessible(page):
    page.get_by_label("Message").fill("Hello!")
    page.keyboard.press("Enter")
    expect(page.locator("#chats a[aria-current]")).to_have_count(1)
    if page.get_by_role("button", name="Open the menu").is_visible():
        page.get_by_role("button", name="Open the menu").click()
    page.get_by_role("button", name="Select chats").click()
    found = {"selection": accessibility_violations(page)}
    page.get_by_role("button", name="Select chats").click()
    page.get_by_label("Search chats").fill("hello")
    expect(page.locator("#chats mark").first).to_be_visible()
    found["search"] = accessibility_violations(page)

    assert {name: one for name, one in found.items() if one} == {}


@pytest.mark.parametrize("view", TABLES)
def test_views_beside_the_chat_are_accessible_and_fit_the_screen(page, view):
    page.goto(f"/#/{view}")
    expect(page.locator(f"#{view}-view {TABLES[view]}").first).to_be_visible()

    assert accessibility_violations(page) == {}
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_answers_failures_and_dialogs_are_accessible(page):
    page.goto("/#/compare")
    page.get_by_label("Question to both models").fill("Hello!")
    page.keyboard.press("Enter")
    expect(page.locator("#compare-view [aria-busy]")).to_have_count(0)
    expect(page.locator("#compare-view article")).to_have_count(2)
    found = {"compared": accessibility_violations(page)}
    page.goto("/#/")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.get_by_label("Message").fill("What is $x^2$?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    found["failure"] = accessibility_violations(page)
    page.unroute("**/v1/chat/completions")
    formula = {"choices": [{"index": 0, "delta": {"content": "$$x^2$$"}, "finish_reason": "stop"}]}
    stream = f"data: {json.dumps({'id': 'one', **formula})}\n\ndata: [DONE]\n\n"
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body=stream, content_type="text/event-stream"),
        times=1,
    )
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("article.answer .katex").first).to_be_visible()
    found["formula"] = accessibility_violations(page)
    page.get_by_label("Message").fill("Hello!")
    page.keyboard.press("Enter")
    expect(page.locator("#chats a[aria-current]")).to_have_count(1)
    if page.get_by_role("button", name="Open the menu").is_visible():
        page.get_by_role("button", name="Open the menu").click()
    page.locator("#chats li").first.hover()
    page.get_by_role("button", name=re.compile("^Delete ")).first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    found["dialog"] = accessibility_violations(page)

    assert {name: one for name, one in found.items() if one} == {}
