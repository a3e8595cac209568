"""Views beside the chat, and the installed page."""

import json
import re
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from llm_backend.builtin import BUILTIN_PATH
from tests.broken_streams import scripted_upstream
from tests.browser import ENDED_MEANWHILE, installability_errors, screenshot, tab
from tests.image_server import FakeImageServer, running
from tests.mcp_server import mcp_server
from tests.models_convert.hub_stand_in import REPOSITORY, hub_with
from tests.patience import wait_until
from tests.serving import Served, serve
from tests.tiny_diffusion import use_library, write_tiny_diffusion


def test_two_models_answer_the_same_questions_side_by_side(browser, server):
    with tab(browser, server.address) as page:
        page.goto("/#/compare")
        second = page.get_by_role("combobox", name="Second model")
        expect(second.locator("option")).not_to_have_count(0)
        second.select_option("gpt-3.5-turbo")
        bodies = []
        page.on("request", lambda one: one.method == "POST" and bodies.append(one.post_data_json))
        for text in ("How do I load a real model?", "Hello!"):
            page.get_by_label("Question to both models").fill(text)
            page.keyboard.press("Enter")
            expect(page.locator("#compare-view [aria-busy]")).to_have_count(0)
            expect(page.get_by_role("button", name="Ask both")).to_be_visible()
        screenshot(page, "compare")

        answers = page.locator("#compare-view article")
        expect(answers).to_have_count(4)
        expect(answers.locator(".prose").first).not_to_be_empty()
        expect(answers.get_by_role("status").first).to_contain_text("tokens in")
        assert [body["model"] for body in bodies] == ["builtin", "gpt-3.5-turbo"] * 2
        assert [len(body["messages"]) for body in bodies] == [1, 1, 3, 3]
        assert not any(body["store"] for body in bodies)
        page.get_by_role("button", name="New", exact=True).click()
        expect(answers).to_have_count(0)


def test_a_failure_of_one_model_is_shown_beside_the_answer_of_the_other(browser, server):
    with tab(browser, server.address, expected_error="ERR_FAILED") as page:
        page.goto("/#/compare")
        page.route(
            "**/v1/chat/completions",
            lambda route: (
                route.abort()
                if route.request.post_data_json["model"] == "gpt-3.5-turbo"
                else route.continue_()
            ),
        )
        page.get_by_role("combobox", name="Second model").select_option("gpt-3.5-turbo")
        page.get_by_label("Question to both models").fill("Hello!")
        page.get_by_role("button", name="Ask both").click()

        first, second = (
            page.get_by_role("region", name=one) for one in ("First model", "Second model")
        )
        expect(second.get_by_role("alert")).to_contain_text("The server cannot be reached.")
        expect(first.locator(".prose")).not_to_be_empty()
        expect(first.get_by_role("alert")).to_be_hidden()


def test_the_installed_page_opens_without_its_server_and_keeps_no_answer(browser, tmp_path):
    with (
        serve(tmp_path) as served,
        tab(browser, served.address, "ERR_|Failed to fetch", service_workers="allow") as page,
    ):
        page.goto("/")
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        page.reload()  # now the worker sees each file
        expect(page.locator("#model")).to_have_value("builtin")
        manifest = page.evaluate("fetch('web/manifest.webmanifest').then((one) => one.json())")
        files = {"/", "app.js", "style.css", "markdown.js"}  # cached behind their answers
        wait_until(lambda: files <= {one.rpartition("/")[2] or one for one in cached_paths(page)})
        kept = cached_paths(page)
        served.process.terminate()
        served.process.wait()
        page.reload()

        expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
        expect(page.get_by_label("Message")).to_be_visible()
        assert manifest["display"] == "standalone"
        assert all(path == "/" or path.startswith("/web/") for path in kept)


def test_each_module_is_requested_once_in_the_bundle_of_a_script_or_alone(browser, server):
    requested: list[str] = []
    with tab(browser, server.address) as page:
        page.on("request", lambda one: requested.append(one.url.rpartition("/")[2]))
        with page.expect_request("**/purify.es.mjs"), page.expect_request("**/math.js"):
            page.goto("/")
        page.get_by_role("link", name="Status").click()
        expect(page.locator(".pill").first).to_be_visible()

    at_start = ["app.js", "start.js", "theme.js"]
    for_answers = ["code.js", "markdown.js", "marked.esm.js", "math.js", "purify.es.mjs"]
    of_status = ["downloads.js", "plot.js", "status.js", "tables.js"]
    modules = [one for one in requested if one.endswith("js")]
    assert sorted(modules[:3]) == at_start
    assert sorted(modules) == sorted([*at_start, *for_answers, *of_status, "install.js"])


def cached_paths(page: Page) -> list[str]:
    """The addresses of what the service worker has cached."""
    paths: list[str] = page.evaluate(
        "caches.open('shell').then((one) => one.keys())"
        ".then((all) => all.map(({ url }) => new URL(url).pathname))"
    )
    return paths


def test_a_file_of_another_release_is_not_cached_at_an_address_of_a_release(browser, server):
    with tab(browser, server.address, service_workers="allow") as page:
        page.goto("/")
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        page.reload()
        wait_until(lambda: any(one.endswith("/app.js") for one in cached_paths(page)))
        page.evaluate(KEEP_UNMARKED, f"{ANOTHER}/start.js")
        fetched = page.evaluate(FETCH, f"{ANOTHER}/start.js")
        page.evaluate(FETCH, f"{ANOTHER}/app.js")
        page.evaluate(FETCH, "/web/icon.svg")
        wait_until(lambda: "/web/icon.svg" in cached_paths(page))

        assert fetched != "from before"
        assert f"{ANOTHER}/app.js" not in cached_paths(page)


ANOTHER = "/web/@0123456789abcdef"  # a release that the server is not of
FETCH = "(path) => fetch(path).then((one) => one.text())"
KEEP_UNMARKED = """async (path) => {
  await (await caches.open("shell")).put(path, new Response("from before"));
}"""


def test_files_of_another_release_are_not_kept(browser, server):
    with tab(browser, server.address, service_workers="allow") as page:
        page.goto("/")
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        page.reload()
        page.wait_for_function("async () => (await caches.open('shell')).match('/')")
        page.evaluate(KEEP_ANOTHER_RELEASE)
        page.reload()

        page.wait_for_function(
            "async () => !(await (await caches.open('shell')).match('/web/old.js'))"
        )
        expect(page.locator("#model")).to_have_value("builtin")


KEEP_ANOTHER_RELEASE = """async () => {
  const shell = await caches.open("shell");
  await shell.put("/web/old.js", new Response("old"));
  await shell.put("/", new Response("old", { headers: { etag: "old" } }));
}"""


KEEP_NOTHING = """() => {
  Cache.prototype.put = () => Promise.reject(new Error("The disk is full."));
  CacheStorage.prototype.open = Cache.prototype.put;
}"""


def test_a_browser_that_can_keep_no_file_has_the_page_as_the_server_has_it(browser, server):
    with tab(browser, server.address, service_workers="allow") as page:
        page.goto("/")
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        page.reload()
        expect(page.locator("#model")).to_have_value("builtin")
        page.evaluate(
            "caches.open('shell')"
            ".then((one) => one.put('web/manifest.webmanifest', new Response('from before')))"
        )
        page.context.service_workers[0].evaluate(KEEP_NOTHING)

        assert page.evaluate("fetch('web/manifest.webmanifest').then((one) => one.json())")


def test_a_model_is_downloaded_loaded_and_removed_on_the_page(browser, tmp_path):
    with hub_with({"tiny-Q8_0.gguf": BUILTIN_PATH.read_bytes()}) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        with (
            serve(tmp_path, "--serve-models-folder", environment=environment) as served,
            tab(browser, served.address) as page,
        ):
            page.goto("/#/status")
            rows = page.locator("tbody.models tr")
            expect(rows).to_have_count(1)
            expect(rows.get_by_role("button", name="Remove builtin")).to_be_hidden()
            page.get_by_label("Model of the Hugging Face hub").fill(f"{REPOSITORY}:Q8_0")
            page.get_by_role("button", name="Download").click()
            row = rows.filter(has_text="tiny-Q8_0")
            expect(row).to_contain_text("unloaded")
            expect(page.locator("#status-view [role=status]")).to_contain_text("is downloaded.")
            offered = page.locator("#model option")
            expect(offered).to_have_text(["builtin", "tiny-Q8_0"])
            row.get_by_role("button", name="Load tiny-Q8_0", exact=True).click()
            expect(row).to_contain_text("ready")
            screenshot(page, "downloaded")
            kept = page.request.delete("/v1/models/builtin")
            row.get_by_role("button", name="Remove tiny-Q8_0").click()
            page.get_by_role("dialog").get_by_role("button", name="Remove").click()
            expect(row).to_have_count(0)
            expect(offered).to_have_text(["builtin"])

    assert kept.status == 403
    assert not list((tmp_path / "models").rglob("*.gguf"))


CALL = {"id": "call_1", "type": "function", "function": {"name": "list_models", "arguments": "{}"}}
ANSWERS = {
    "refused": [{"role": "assistant", "content": "Then I do not know."}],
    '"data"': [{"role": "assistant", "content": "There is one, far away."}],
    "Error: ": [{"role": "assistant", "content": "One of them failed."}],
    "twice": [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"index": 0, **CALL}, {"index": 1, **CALL, "id": "call_2"}],
        }
    ],
    "models": [{"role": "assistant", "content": None, "tool_calls": [{"index": 0, **CALL}]}],
    "raining": [{"role": "assistant", "content": "Take an umbrella."}],
}


def call_weather(tool: str) -> list[dict[str, Any]]:
    function = {"name": tool, "arguments": '{"city": "Paris"}'}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}]


@pytest.fixture(scope="module")
def tool_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose tools a model elsewhere may call."""
    with mcp_server() as towns:
        tool = f"127_0_0_1_{towns.split(':')[2].removesuffix('/mcp')}__get_weather"
        answers = {**ANSWERS, "weather": call_weather(tool)}
        with tools_of(towns, answers, tmp_path_factory.mktemp("tools")) as served:
            yield served


@contextmanager
def tools_of(towns: str, answers: dict[str, Any], folder: Path) -> Iterator[Served]:
    with scripted_upstream(answers) as port:
        environment = {
            "LLM_BACKEND_MODELS": "none", "LLM_BACKEND_MCP_API": "true", "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "LLM_BACKEND_MCP_SERVERS": towns,
        }  # fmt: skip
        with serve(folder, environment=environment) as served:
            yield served


@pytest.fixture
def tools_page(browser: Browser, tool_server: Served) -> Iterator[Page]:
    with tab(browser, tool_server.address, f"ERR_FAILED|{ENDED_MEANWHILE}") as page:
        page.goto("/")
        expect(page.locator("#model")).to_have_value("far")
        page.get_by_role("button", name="Options").click()
        page.get_by_label("The model may call tools of this server").check()
        page.keyboard.press("Escape")
        yield page


def ask(page: Page, question: str) -> Locator:
    """Asks, and returns the question whether calls may be made."""
    page.get_by_label("Message").fill(question)
    page.keyboard.press("Enter")
    approval = page.get_by_role("group", name="Approval")
    expect(approval).to_be_visible()
    return approval


def test_a_model_calls_a_tool_of_the_server_once_that_is_allowed(tools_page):
    page = tools_page
    none = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "No tools today."}}
    page.route("**/mcp", lambda route: route.fulfill(json=none))
    page.get_by_label("Message").fill("Which models are there?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("No tools today.")
    page.unroute("**/mcp")
    for decision, result, answer in (
        ("Refuse", "The call was refused", "Then I do not know."),
        ("Allow", "Result of the call", "There is one, far away."),
    ):
        with page.expect_request("**/v1/chat/completions") as asked:
            page.get_by_label("Message").fill("Which models are there?")
            page.keyboard.press("Enter")
        approval = page.get_by_role("group", name="Approval")
        expect(approval).to_contain_text("The model wants to call list_models.")
        expect(page.locator(".calls pre")).to_be_visible()  # what it sends
        screenshot(page, "approval")
        approval.get_by_role("button", name=decision).click()
        expect(page.locator("article.answer .prose").last).to_have_text(answer)
        expect(approval).to_have_count(0)
        page.reload()
        expect(page.get_by_text(result)).to_be_visible()
        expect(page.locator("article.answer .prose").last).to_have_text(answer)
        page.get_by_role("button", name="New chat").click()

    names = [one["function"]["name"] for one in asked.value.post_data_json["tools"]]
    assert "list_models" in names


def test_a_model_calls_a_tool_of_another_server_once_that_is_allowed(tools_page):
    page = tools_page
    approval = ask(page, "How is the weather in Paris?")
    expect(approval).to_contain_text("__get_weather.")
    screenshot(page, "approval-elsewhere")
    approval.get_by_role("button", name="Allow").click()

    expect(page.locator("article.answer .prose").last).to_have_text("Take an umbrella.")
    page.get_by_text("Result of the call").click()
    expect(page.get_by_text("It is raining in Paris.")).to_be_visible()


def test_servers_whose_tools_are_missing_are_named_once_and_the_model_answers(tools_page):
    page = tools_page
    failed = {"tools": [], "_meta": {"llm-backend/unavailable": {"towns": "It is away."}}}
    page.route(
        "**/mcp", lambda route: route.fulfill(json={"jsonrpc": "2.0", "id": 1, "result": failed})
    )
    page.get_by_label("Message").fill("It is refused?")
    page.keyboard.press("Enter")
    answer = page.locator("article.answer:not(.is-growing)")
    expect(answer).to_have_text("Then I do not know.")

    expect(page.get_by_role("alert")).to_have_text("The tools of towns cannot be had: It is away.")


def test_a_call_that_has_its_result_is_not_made_again_when_another_fails(tools_page):
    calls: list[str] = []
    tools_page.route("**/mcp", lambda route: break_the_second(route, calls))
    approval = ask(tools_page, "Ask twice!")
    calls.clear()  # the list of tools was asked for
    approval.get_by_role("button", name="Allow").click()

    alert = tools_page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached.")
    alert.get_by_role("button", name="Try again").click()
    expect(tools_page.locator("article.answer .prose").last).to_have_text("There is one, far away.")
    expect(tools_page.get_by_text("Result of the call")).to_have_count(2)
    assert len(calls) == 3


def break_the_second(route: Route, calls: list[str]) -> None:
    calls.append(route.request.post_data or "")
    if len(calls) == 2:
        route.abort()
    else:
        route.continue_()


def test_a_call_that_takes_long_shows_a_notice_and_is_stopped_and_made_later(tools_page):
    tools_page.clock.install()
    approval = ask(tools_page, "Which models are there?")
    waiting: list[Route] = []
    tools_page.route("**/mcp", lambda route: waiting.append(route))
    approval.get_by_role("button", name="Allow").click()
    stop = tools_page.get_by_role("button", name="Stop")
    expect(stop).to_be_visible()
    tools_page.clock.run_for(16_000)
    expect(tools_page.locator("#notice")).to_contain_text("The tool has not answered yet.")
    stop.click()

    expect(approval).to_be_visible()
    tools_page.unroute("**/mcp")
    approval.get_by_role("button", name="Allow").click()
    expect(tools_page.locator("article.answer .prose").last).to_have_text("There is one, far away.")


@pytest.mark.parametrize("is_back_before", [True, False])
def test_a_call_goes_on_while_another_chat_is_open(tools_page, is_back_before):
    page = tools_page
    approval = ask(page, "Which models are there?")
    waiting: list[Route] = []
    page.route("**/mcp", lambda route: waiting.append(route))
    with page.expect_request("**/mcp"):
        approval.get_by_role("button", name="Allow").click()
    address = page.url
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    if is_back_before:
        page.goto(address)
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        waiting[0].continue_()
    else:
        with page.expect_response("**/v1/chat/completions"):
            waiting[0].continue_()
        page.goto(address)

    expect(page.locator("article.answer .prose").last).to_have_text("There is one, far away.")
    expect(page.get_by_text("Result of the call")).to_have_count(1)


def test_a_parameter_that_cannot_be_keeps_the_question_to_both_models(browser, server):
    with tab(browser, server.address) as page:
        page.goto("/")
        page.get_by_role("button", name="Options").click()
        page.get_by_text("More parameters").click()
        page.get_by_label("Max tokens").fill("0")
        page.get_by_label("Max tokens").press("Tab")
        page.goto("/#/compare")
        field = page.get_by_label("Question to both models")
        field.fill("Where am I?")
        page.keyboard.press("Enter")

        expect(page.locator("#compare-view").get_by_role("alert")).to_contain_text("Max tokens: ")
        expect(field).to_have_value("Where am I?")


def test_no_download_is_offered_where_the_server_has_none(browser, server):
    with tab(browser, server.address) as page:
        describe_without(page, "pulls_models")
        page.goto("/")
        expect(page.locator("#model")).to_have_value("builtin")
        page.get_by_role("link", name="Status").click()
        expect(page.get_by_role("button", name="Unload builtin", exact=True)).to_be_visible()

        expect(page.get_by_label("Model of the Hugging Face hub")).to_have_count(0)


def test_a_model_that_the_status_lists_late_can_be_removed(browser, server):
    with tab(browser, server.address) as page:
        describe_without(page, "pulls_models")
        models = page.request.get("/v1/models").json()
        models["data"][0]["file"] = "small.gguf"  # as of a model that was downloaded
        page.route("**/v1/models", lambda route: route.fulfill(json=models))
        page.goto("/")
        expect(page.locator("#model")).to_have_value("builtin")
        held: list[Route] = []
        page.route("**/status", lambda route: held.append(route))
        page.get_by_role("link", name="Status").click()
        wait_until(lambda: held, page.wait_for_timeout)
        page.evaluate("fetch('ping').then((answer) => answer.text())")
        held[0].continue_()

        expect(page.get_by_role("button", name="Remove builtin")).to_be_visible()


def describe_without(page: Page, ability: str) -> None:
    """The server describes itself without an ability. Its answer is read here: a tab may close
    before the handler of a route has read one."""
    info = page.request.get("/v1/info").json() | {ability: False}
    page.route("**/v1/info", lambda route: route.fulfill(json=info))


def test_a_download_is_seen_again_on_return_to_the_page(browser, server):
    with tab(browser, server.address, expected_error="ERR_") as page:
        page.route("**/api/pull", lambda _: None)
        page.goto("/#/status")
        page.get_by_label("Model of the Hugging Face hub").fill("a/b")
        page.get_by_role("button", name="Download").click()
        bar = page.get_by_role("progressbar", name="Progress of the download")
        expect(bar).to_be_visible()
        page.goto("/#/")
        expect(bar).to_be_hidden()
        page.goto("/#/status")

        expect(bar).to_be_visible()
        page.get_by_label("Model of the Hugging Face hub").fill("")
        page.locator("#status-view form").get_by_role("button", name="Stop").click()
        expect(bar).to_be_hidden()
        expect(page.get_by_text("Stopped. The download goes on")).to_be_visible()


def test_the_page_is_english_where_its_dictionary_cannot_be_fetched(browser, server):
    with tab(browser, server.address, expected_error="ERR_FAILED", locale="de-DE") as page:
        page.route("**/languages/de.json", lambda route: route.abort())
        page.goto("/")

        expect(page.locator("#model")).to_have_value("builtin")
        expect(page.get_by_role("button", name="New chat")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "en"


def test_a_failure_in_the_sidebar_is_shown_beside_every_view(browser, server):
    with tab(browser, server.address, expected_error="ERR_FAILED") as page:
        page.goto("/#/status")
        expect(page.locator(".pill")).to_have_text("Idle")
        page.route("**/v1/chat/search?*", lambda route: route.abort())
        page.get_by_label("Search chats").fill("Hello")

        expect(page.locator("#notice")).to_be_visible()
        expect(page.locator("#notice")).to_contain_text("The server cannot be reached.")


def test_the_enter_key_stops_no_answers_of_two_models(browser, server):
    with tab(browser, server.address) as page:
        page.goto("/#/compare")
        field = page.get_by_label("Question to both models")
        waiting: list[Route] = []
        page.route("**/v1/chat/completions", lambda route: waiting.append(route))
        field.fill("one")
        field.press("Enter")
        running = page.locator("#compare-view [aria-busy]")
        expect(running).to_have_count(2)
        field.fill("two")
        field.press("Enter")
        expect(running).to_have_count(2)
        page.get_by_role("button", name="Stop").click()

        expect(running).to_have_count(0)
        expect(field).to_have_value("two")


def test_answers_of_two_models_are_stopped_while_the_field_is_empty(browser, server):
    with tab(browser, server.address) as page:
        page.goto("/#/compare")
        page.route("**/v1/chat/completions", lambda _: None)
        field = page.get_by_label("Question to both models")
        field.fill("one")
        field.press("Enter")
        running = page.locator("#compare-view [aria-busy]")
        expect(running).to_have_count(2)
        expect(field).to_have_value("")
        page.get_by_role("button", name="Stop").click()

        expect(running).to_have_count(0)


def test_a_status_page_without_the_list_of_models_shows_an_alert(browser, server):
    with tab(browser, server.address, expected_error="ERR_FAILED") as page:
        page.goto("/")
        expect(page.locator("#model")).to_have_value("builtin")
        page.route("**/v1/models", lambda route: route.abort())
        page.get_by_role("link", name="Status").click()

        alert = page.locator("#status-view").get_by_role("alert")
        expect(alert).to_have_text("The server cannot be reached.")


def test_the_status_of_all_models_is_in_the_language_of_the_page(browser, server):
    work = {"running": 2, "waiting": 1, "generated_tokens": 0, "cell_tokens": 0}
    models = [{"id": "one", "state": "ready", "work": work}]
    for status, states, sentence in (
        ("idle", models, "1 von 1 bereit."),
        ("processing", models, "2 laufen, 1 warten."),
        ("loading", [{**models[0], "state": "starting"}], "Modelle werden geladen."),
        ("error", [{**models[0], "state": "failed"}], "Kein Modell kann antworten"),
        ("idle", [], "Ein Upstream antwortet"),
        ("terminated", [], "Kein Modell läuft hier."),
    ):
        event = {"status": status, "info": "The server's words.", "models": states, "drawings": []}
        with tab(browser, server.address, locale="de-DE") as page:
            answer_status(page, event)
            page.goto("/#/status")
            expect(page.locator("#status-view .lead")).to_contain_text(sentence)


def answer_status(page: Page, event: Mapping[str, Any]) -> None:
    """Has the server's stream of statuses be this one event."""
    stream = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"
    page.route(
        "**/status", lambda route: route.fulfill(body=stream, content_type="text/event-stream")
    )


def test_a_page_whose_dictionary_comes_late_is_installable(browser, server):
    with tab(browser, server.address, locale="de-DE", service_workers="allow") as page:
        waiting: list[Route] = []
        page.route("**/languages/de.json", lambda route: waiting.append(route))
        page.goto("/")  # returns once the event `load` has come
        with page.expect_request("**/install.js"):
            waiting[0].continue_()

        assert page.evaluate("navigator.serviceWorker.ready.then((one) => one.scope)")


@pytest.mark.parametrize(("path", "errors"), [("/", []), ("/docs", ["no-manifest"])])
def test_chat_page_can_be_installed_and_no_other(server, tmp_path, path, errors):
    assert installability_errors(f"{server.address}{path}", tmp_path) == errors


def test_a_downloaded_model_is_named_as_it_was_when_the_download_began(browser, server):
    with tab(browser, server.address) as page:
        waiting: list[Route] = []
        page.route("**/api/pull", lambda route: waiting.append(route))
        page.goto("/#/status")
        field = page.get_by_label("Model of the Hugging Face hub")
        field.fill("a/b")
        with page.expect_request("**/api/pull"):
            page.get_by_role("button", name="Download").click()
        field.fill("c/d")
        waiting[0].fulfill(body='{"status": "success"}\n')

        expect(page.get_by_text("a/b is downloaded.")).to_be_visible()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"status": "a.gguf", "total": 9, "completed": 1}\n', "was lost"),
        ('{"status": "success"}', "a/b is downloaded."),
        ('{"error": "There is no such model."}', "There is no such model."),
    ],
)
def test_a_download_ends_with_the_status_of_the_server(browser, server, body, said):
    with tab(browser, server.address) as page:
        page.route("**/api/pull", lambda route: route.fulfill(body=body))
        page.goto("/#/status")
        page.get_by_label("Model of the Hugging Face hub").fill("a/b")
        page.get_by_role("button", name="Download").click()

        expect(page.get_by_text(said)).to_be_visible()


RECORD_BAR = """(bar) => {
  const { set, get } = Object.getOwnPropertyDescriptor(HTMLProgressElement.prototype, "value");
  window.shown = [];
  Object.defineProperty(bar, "value", {
    get() { return get.call(bar); },
    set(share) { set.call(bar, share); window.shown.push(share); },
  });
}"""


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ([{"completed": 0}, {"completed": 3}, {"completed": 9}], [0, 1 / 3, 1]),
        ([{}, {"completed": 9}], [0, 1]),  # as Ollama begins a layer
        ([{"completed": 12}], [1]),  # a file that has grown since its size was read
    ],
)
def test_bar_of_a_download_stays_between_nothing_and_all(browser, server, numbers, shown):
    lines = [
        {"status": "pulling manifest"},
        *({"status": "a.gguf", "total": 9, **one} for one in numbers),
    ]
    with tab(browser, server.address) as page:
        body = "\n".join(map(json.dumps, [*lines, {"status": "success"}]))
        page.route("**/api/pull", lambda route: route.fulfill(body=body))
        page.goto("/#/status")
        page.get_by_label("Model of the Hugging Face hub").fill("a/b")
        bar = page.locator("progress[aria-label='Progress of the download']")
        bar.evaluate(RECORD_BAR)
        page.get_by_role("button", name="Download").click()

        expect(page.get_by_text("a/b is downloaded.")).to_be_visible()
        expect(bar).to_be_hidden()
        assert page.evaluate("window.shown") == pytest.approx(shown)


def test_operations_are_searched_as_before_on_return_to_the_page(browser, server):
    with tab(browser, server.address) as page:
        page.goto("/#/operations")
        field = page.get_by_role("searchbox", name="Find an operation")
        field.fill("create chat completion")
        expect(page.locator("#operations-view tbody tr")).to_have_count(1)
        page.goto("/#/status")
        expect(page.locator(".pill")).to_have_text("Idle")
        page.goto("/#/operations")

        expect(field).to_have_value("create chat completion")
        expect(page.locator("#operations-view tbody tr")).to_have_count(1)


def test_the_question_whether_a_tool_may_be_called_is_announced(tools_page):
    ask(tools_page, "Which models are there?")

    announcer = tools_page.locator("#announcer")
    expect(announcer).to_contain_text("The model wants to call list_models.")
    expect(tools_page.get_by_label("Message")).to_be_focused()  # no key that is typed may allow it


def test_a_call_that_was_refused_or_failed_is_named_so(tools_page):
    ask(tools_page, "Which models are there?").get_by_role("button", name="Refuse").click()
    expect(tools_page.get_by_text("The call was refused")).to_be_visible()
    prose = tools_page.locator("article.answer .prose").last
    expect(prose).to_have_text("Then I do not know.")  # so that another question can be asked
    approval = ask(tools_page, "Which models are there?")
    failed = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "No tools today."}}
    tools_page.route("**/mcp", lambda route: route.fulfill(json=failed))
    approval.get_by_role("button", name="Allow").click()

    expect(tools_page.get_by_text("The call failed")).to_be_visible()


def test_results_of_a_chat_that_was_left_are_continued_on_return(tools_page):
    page = tools_page
    describe_without(page, "detaches_chats")
    page.reload()
    expect(page.locator("#model")).to_have_value("far")
    approval = ask(page, "Which models are there?")
    waiting: list[Route] = []
    page.route("**/mcp", lambda route: waiting.append(route))
    with page.expect_request("**/mcp"):
        approval.get_by_role("button", name="Allow").click()
    address = page.url
    page.get_by_role("button", name="New chat").click()
    with page.expect_response("**/mcp"):
        waiting[0].continue_()
    page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which it has ended
    page.goto(address)

    expect(page.locator("article.answer .prose").last).to_have_text("There is one, far away.")
    expect(page.get_by_text("Result of the call")).to_have_count(1)


def test_failed_result_of_a_chat_that_was_left_reaches_the_model(tools_page):
    page = tools_page
    approval = ask(page, "Which models are there?")
    address = page.url
    calls: list[Route] = []
    page.route("**/mcp", lambda route: calls.append(route))
    approval.get_by_role("button", name="Allow").click()
    wait_until(lambda: calls, page.wait_for_timeout)
    leave_for_a_new_chat(page)
    failed = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "No tools today."}}
    with page.expect_response("**/v1/chat/completions") as asked:
        calls[0].fulfill(json=failed)
    page.goto(address)

    last = asked.value.request.post_data_json["messages"][-1]
    assert (last["role"], last["content"]) == ("tool", "Error: No tools today.")
    expect(page.get_by_text("The call failed")).to_have_count(1)
    expect(page.locator("article.answer .prose").last).to_have_text("One of them failed.")


def test_calls_of_a_chat_that_was_left_keep_their_results_when_the_connection_is_lost(tools_page):
    page = tools_page
    approval = ask(page, "Ask twice!")
    calls: list[Route] = []

    def hold_the_second(route: Route) -> None:
        calls.append(route)
        if len(calls) != 2:
            route.continue_()

    page.route("**/mcp", hold_the_second)
    approval.get_by_role("button", name="Allow").click()
    wait_until(lambda: len(calls) == 2, page.wait_for_timeout)
    leave_for_a_new_chat(page)
    calls[1].abort()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Ask twice!: The server cannot be reached.")
    alert.get_by_role("button", name="Try again").click()
    approval.get_by_role("button", name="Allow").click()

    expect(page.locator("article.answer .prose").last).to_have_text("There is one, far away.")
    expect(page.get_by_text("Result of the call")).to_have_count(2)
    assert len(calls) == 3


def leave_for_a_new_chat(page: Page) -> None:
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("article")).to_have_count(0)


def test_the_window_is_named_by_the_view_and_a_model_by_its_buttons(browser, server):
    with tab(browser, server.address) as page:
        page.goto("/#/status")
        expect(page.get_by_role("button", name="Unload builtin", exact=True)).to_be_visible()
        expect(page).to_have_title("Status – llm-backend")
        page.goto("/#/")
        expect(page).to_have_title("llm-backend")
        page.get_by_label("Message").fill("Hello window!")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Answer again")).to_be_visible()
        page.get_by_role("link", name="Operations").click()
        expect(page).to_have_title("Operations – llm-backend")
        page.go_back()

        expect(page).to_have_title("Hello window! – llm-backend")


def test_the_progress_of_an_image_is_seen(browser, tmp_path):
    painter = FakeImageServer(is_held=True, share=0.25)
    with running(painter) as release:
        config = tmp_path / "images.yaml"
        config.write_text(json.dumps({"backends": [painter.backend()]}))  # which is YAML
        environment = {"LLM_BACKEND_MODELS": "none"}
        with (
            serve(tmp_path, "--config", str(config), environment=environment) as served,
            tab(browser, served.address) as page,
            ThreadPoolExecutor() as pool,
        ):
            page.goto("/#/status")
            asked = {"model": "sd-one", "prompt": "a cat"}
            answer = pool.submit(
                httpx.post, f"{served.base_url}/images/generations", json=asked, timeout=None
            )
            images = page.get_by_role("region", name="Images being drawn")
            bar = images.get_by_role("progressbar")
            try:
                expect(bar).to_have_js_property("value", 0.25)
                expect(images).to_contain_text("sd-one")
                painter.share = 0.75
                expect(bar).to_have_js_property("value", 0.75)
            finally:
                release()
            expect(images).to_be_hidden()

    assert answer.result().status_code == 200


def test_an_image_of_a_local_model_is_seen_until_its_client_leaves(browser, tmp_path):
    write_tiny_diffusion(tmp_path / "tiny.gguf")
    (tmp_path / "images.yaml").write_text("image_models: {tiny: {steps: {medium: 1000}}}")
    body = json.dumps({"model": "tiny", "prompt": "a cat", "size": "64x64"})
    head = (
        "POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}"
    )
    flags = ("--model", str(tmp_path / "tiny.gguf"), "--config", str(tmp_path / "images.yaml"))
    with (
        pytest.MonkeyPatch.context() as patch,
        serve(tmp_path, *flags, environment=use_library(patch)) as served,
        tab(browser, served.address) as page,
    ):
        page.goto("/#/status")
        images = page.get_by_role("region", name="Images being drawn")
        bar = images.get_by_role("progressbar")
        port = int(served.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(f"{head}\r\n\r\n{body}".encode())
            expect(images).to_contain_text("tiny")
            expect(bar).to_have_attribute("value", re.compile(r"^0\.0*[1-9]"))
            screenshot(page, "drawing")
        expect(images).to_be_hidden()


def test_the_status_follows_a_key_that_is_entered_beside_it(browser, tmp_path):
    keys = {"LLM_BACKEND_API_KEYS": "sk-right", "LLM_BACKEND_MODELS": "none"}
    with (
        serve(tmp_path, environment=keys) as closed,
        tab(browser, closed.address, expected_error="401") as page,
    ):
        page.goto("/#/status")
        expect(page.locator(".pill")).to_have_text("Error")
        field = page.get_by_label("API key")
        field.fill("sk-right")
        field.press("Enter")

        expect(page.locator(".pill")).to_have_text("Stopped")  # it serves no model
