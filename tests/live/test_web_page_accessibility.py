"""The web page for readers without sight or pointer: axe-core finds nothing in any view."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
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
    with screen_of(browser, folder_server, request.param) as one:
        one.goto("/")
        expect(one.locator("#model")).to_have_value("builtin")
        yield one


@contextmanager
def screen_of(browser: Browser, served: Served, screen: str) -> Iterator[Page]:
    """A tab on a screen of this name."""
    context = browser.new_context(
        base_url=served.address,
        service_workers="block",
        reduced_motion="reduce",  # colours are judged as they end
        **SCREENS[screen],
    )
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
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


@pytest.fixture(scope="module")
def organization(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with projects, keys, limits, usage and costs."""
    environment = {
        "LLM_BACKEND_API_KEYS": OPERATOR,
        "LLM_BACKEND_PRICES": '{"builtin": {"input": 1000, "output": 2000}}',
    }
    with serve(tmp_path_factory.mktemp("organization"), environment=environment) as served:
        admin = httpx.Client(
            base_url=f"{served.base_url}/organization", headers=AS_OPERATOR, timeout=60
        )
        for name in ("Class 7b", "Archive of 2025"):
            project = admin.post("/projects", json={"name": name}).json()["id"]
            account = admin.post(f"/projects/{project}/service_accounts", json={"name": "laptop"})
            key = account.raise_for_status().json()["api_key"]["value"]
            limits = {"max_requests_per_1_minute": 30}
            admin.post(
                f"/projects/{project}/rate_limits/rl-builtin", json=limits
            ).raise_for_status()
            httpx.post(
                f"{served.base_url}/chat/completions",
                json={"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}]},
                headers={"authorization": f"Bearer {key}"},
                timeout=60,
            ).raise_for_status()
        admin.post(f"/projects/{project}/archive").raise_for_status()
        admin.close()
        yield served


OPERATOR = "sk-operator"
AS_OPERATOR = {"authorization": f"Bearer {OPERATOR}"}


@pytest.mark.parametrize("screen", SCREENS)
def test_filled_administration_is_accessible(browser, organization, screen):
    with screen_of(browser, organization, screen) as page:
        page.goto("/docs")  # a page of the same origin
        page.evaluate("key => sessionStorage.setItem('llm-backend.api-key', key)", OPERATOR)
        page.goto("/#/administration")
        projects = page.get_by_role("region", name="Projects", exact=True)
        expect(projects.get_by_role("row")).to_have_count(4)  # with the head and the default one
        audit = page.get_by_role("region", name="Audit log")
        expect(audit).to_contain_text("project.archived")
        found = {"organization": accessibility_violations(page)}
        page.get_by_label("Project", exact=True).select_option(label="Class 7b")
        used = page.get_by_role("region", name="Usage by model").get_by_role("row", name="builtin")
        expect(used).to_have_count(1)
        expect(page.locator("#administration-view .figures svg")).to_have_count(4)
        keys = page.get_by_role("region", name="Keys of the project")
        expect(keys.get_by_role("row", name="laptop")).to_have_count(1)
        expect(page.get_by_label("Requests a minute: builtin")).to_have_value("30")
        page.get_by_label("New key").fill("desk")
        page.get_by_role("button", name="Create", exact=True).click()
        expect(page.get_by_role("status").locator("code")).to_be_visible()
        found["project"] = accessibility_violations(page)
        keys.get_by_role("button", name="Revoke desk").first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        found["dialog"] = accessibility_violations(page)

        assert {name: one for name, one in found.items() if one} == {}
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
