"""Administration on the chat page: what keys that administer see and do, and others do not."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import openai
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser import screenshot, tab
from tests.serving import Served, serve

OPERATOR = "sk-operator"
DEFAULT_PROJECT = "proj_default"
NO_SPEND_LIMIT = r"404 .*/spend_limit"  # the console has a line for each

Connect = Callable[[str], openai.OpenAI]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {
        "LLM_BACKEND_API_KEYS": OPERATOR,
        "LLM_BACKEND_PRICES": '{"builtin": {"input": 1000, "output": 2000}}',
    }
    with serve(tmp_path_factory.mktemp("administration"), environment=environment) as one:
        yield one


@pytest.fixture
def connect(closed: Served) -> Iterator[Connect]:
    """Makes official clients with a key, which are closed after the test."""

    def connected(key: str) -> openai.OpenAI:
        client = openai.OpenAI(
            base_url=f"{closed.address}/v1", api_key=key, admin_api_key=key, max_retries=0
        )
        return stack.enter_context(client)

    with ExitStack() as stack:
        yield connected


def open_with(page: Page, key: str, path: str = "/#/administration") -> None:
    """Opens a page with this key."""
    page.goto("/docs")  # a page of the same origin
    page.evaluate("key => sessionStorage.setItem('llm-backend.api-key', key)", key)
    page.goto(path)


def test_a_key_is_made_used_and_revoked_by_an_administrator(browser, closed, connect):
    with tab(browser, closed.address, expected_error=NO_SPEND_LIMIT) as page:
        open_with(page, OPERATOR)
        page.get_by_label("New key").fill("laptop")
        page.get_by_role("button", name="Create", exact=True).click()
        value = page.get_by_role("status").locator("code").inner_text()
        expect(page.get_by_role("button", name="Create", exact=True)).to_be_focused()
        keys = page.get_by_role("region", name="Keys of the project")
        expect(keys.get_by_role("row", name="laptop")).to_contain_text("never")
        expect(page.get_by_role("region", name="Audit log")).to_contain_text(
            "service_account.created"
        )
        screenshot(page, "administration-key")
        client = connect(value)
        assert client.models.list().data
        keys.get_by_role("button", name="Revoke laptop").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(keys.get_by_role("row", name="laptop")).to_have_count(0)

        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        expect(page.get_by_role("region", name="Audit log")).to_contain_text("api_key.deleted")


def test_usage_and_costs_are_plotted_by_day(browser, closed, connect):
    client = connect(OPERATOR)
    client.chat.completions.create(
        model="builtin", messages=[{"role": "user", "content": "Hello!"}]
    )
    with tab(browser, closed.address, expected_error=NO_SPEND_LIMIT) as page:
        open_with(page, OPERATOR)
        figures = page.locator("#administration-view .figures")
        used = page.get_by_role("region", name="Usage by model").get_by_role("row", name="builtin")
        expect(figures.locator("svg")).to_have_count(4)
        expect(used).to_have_count(1)
        page.get_by_role("button", name="30 days").click()
        expect(figures.locator("svg").first.locator("rect")).to_have_count(30)
        screenshot(page, "administration")
        expect(figures.get_by_role("img", name=re.compile("^Costs by day"))).to_be_visible()
        assert re.search(r"Costs\s+\$0\.\d*[1-9]", figures.inner_text())
        limits = page.get_by_role("region", name="Limits of the project")
        expect(limits.get_by_label("Tokens a minute: builtin")).to_have_value("")


def test_a_project_is_created_limited_and_archived(browser, closed, connect):
    organization = connect(OPERATOR).admin.organization
    with tab(browser, closed.address, expected_error=NO_SPEND_LIMIT) as page:
        open_with(page, OPERATOR)
        page.get_by_label("New project").fill("Class 7b")
        page.get_by_role("button", name="Create the project").click()
        choice = page.get_by_label("Project", exact=True)
        expect(choice.locator("option:checked")).to_have_text("Class 7b")
        project = choice.input_value()
        page.get_by_label("Requests a minute: builtin").fill("30")
        with page.expect_response("**/rate_limits/rl-builtin"):
            page.get_by_role("button", name="Save the limits of builtin").click()
        expect(page.get_by_label("Requests a minute: builtin")).to_have_value("30")
        page.get_by_label("Spend limit per month").fill("2.5")
        with page.expect_response("**/spend_limit"):
            page.get_by_role("button", name="Save the spend limit").click()
        expect(page.get_by_label("Spend limit per month")).to_have_value("2.5")
        screenshot(page, "administration-project")
        stored = httpx.get(
            f"{closed.address}/v1/organization/projects/{project}/rate_limits",
            headers={"authorization": f"Bearer {OPERATOR}"},
        )
        assert "max_requests_per_1_day" not in stored.json()["data"][0]  # it was not changed
        limits = {
            one.model: one for one in organization.projects.rate_limits.list_rate_limits(project)
        }
        assert limits["builtin"].max_requests_per_1_minute == 30
        assert limits["builtin"].max_tokens_per_1_minute == 1_000_000_000
        page.get_by_label("Spend limit per month").fill("")
        with page.expect_response(lambda one: one.request.method == "DELETE"):
            page.get_by_role("button", name="Save the spend limit").click()
        expect(page.locator("#announcer")).to_contain_text("Saved")
        page.get_by_role("button", name="Archive Class 7b").click()
        page.get_by_role("dialog").get_by_role("button", name="Archive").click()
        projects = page.get_by_role("region", name="Projects", exact=True)

        expect(projects.get_by_role("row", name="Class 7b")).to_contain_text("archived")
        assert organization.projects.retrieve(project).status == "archived"


def test_a_change_that_the_server_refuses_is_an_alert(browser, closed):
    with tab(browser, closed.address, expected_error="40[04]") as page:
        open_with(page, OPERATOR)
        page.get_by_label("New project").fill(" ")
        page.get_by_role("button", name="Create the project").click()

        expect(page.get_by_role("alert")).to_contain_text("name")
        expect(page.get_by_role("button", name=re.compile("^Archive Default"))).to_have_count(0)


def test_all_projects_are_offered_though_a_page_of_the_list_ends_early(browser, closed, connect):
    made = connect(OPERATOR).admin.organization.projects.create(name="Second one")
    with tab(browser, closed.address, expected_error=NO_SPEND_LIMIT) as page:
        page.route(
            "**/organization/projects?*",
            lambda route: route.continue_(url=route.request.url.replace("limit=100", "limit=1")),
        )
        open_with(page, OPERATOR)
        page.get_by_label("Project", exact=True).select_option("Second one")

        expect(page.get_by_label("Project", exact=True)).to_have_value(made.id)


def test_keys_of_a_project_that_was_left_are_not_shown_under_another(browser, closed, connect):
    projects = connect(OPERATOR).admin.organization.projects
    slow = projects.create(name="Slow one")
    account = projects.service_accounts.create(slow.id, name="of the slow one")
    with tab(browser, closed.address, expected_error=NO_SPEND_LIMIT) as page:
        open_with(page, OPERATOR)
        keys = page.get_by_role("region", name="Keys of the project")
        expect(keys).to_be_visible()
        held: list[Route] = []
        page.route(f"**/{slow.id}/api_keys?*", lambda route: held.append(route))
        choice = page.get_by_label("Project", exact=True)
        with page.expect_request(f"**/{slow.id}/api_keys?*"):
            choice.select_option("Slow one")
        with page.expect_response(f"**/{DEFAULT_PROJECT}/api_keys?*"):
            choice.select_option(DEFAULT_PROJECT)
        with page.expect_response(f"**/{slow.id}/api_keys?*") as late:
            held[0].continue_()
        assert account.name in late.value.text()
        page.evaluate("() => new Promise((done) => setTimeout(done))")  # what it leads to

        expect(choice).to_have_value(DEFAULT_PROJECT)
        expect(keys.get_by_role("row", name=account.name)).to_have_count(0)


@pytest.mark.parametrize(
    ("label", "address", "button"),
    [
        ("New key", "**/service_accounts", "Create"),
        ("New project", "**/organization/projects", "Create the project"),
    ],
)
def test_a_form_that_is_submitted_twice_is_sent_once(browser, closed, label, address, button):
    with tab(browser, closed.address, expected_error=NO_SPEND_LIMIT) as page:
        open_with(page, OPERATOR)
        expect(page.get_by_role("region", name="Keys of the project")).to_be_visible()
        held: list[Route] = []
        page.route(address, lambda route: held.append(route))
        field = page.get_by_label(label)
        field.fill("Sent once")
        field.press("Enter")
        field.press("Enter")
        page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which all are sent
        assert len(held) == 1
        held[0].continue_()

        expect(page.get_by_role("row", name=re.compile("^Sent once"))).to_have_count(1)
        expect(page.get_by_role("button", name=button, exact=True)).to_be_enabled()


def test_administration_is_hidden_from_a_key_that_may_not(browser, closed, connect):
    admin = connect(OPERATOR).admin.organization
    account = admin.projects.service_accounts.create("proj_default", name="phone")
    with tab(browser, closed.address, expected_error="403") as page:
        open_with(page, account.api_key.value, "/")
        expect(page.locator("#model")).to_have_value("builtin")
        expect(page.get_by_role("link", name="Administration")).to_be_hidden()
        page.goto("/#/administration")

        expect(page.get_by_role("alert")).to_contain_text("admin")
