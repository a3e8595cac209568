"""The chat page while connections fail: every turn ends, and what was said stays."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect

from tests.broken_streams import Break, BreakingProxy, breaking_proxy, scripted_upstream
from tests.browser import ENDED_MEANWHILE, screenshot, tab
from tests.patience import wait_until
from tests.ports import free_port
from tests.serving import Served, serve

DELTAS = [
    {"role": "assistant", "content": ""},
    {"reasoning_content": "First this."},
    {"reasoning_content": " Then that."},
    {"content": "Ready"},
    {"content": " steady go"},
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"at"'}}
CALLS = [
    {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **CALL}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": ': "sea"}'}}]},
]
ANSWERS = {
    "Go on": [{"role": "assistant", "content": "and on."}],
    "weather": CALLS,
    "Slowly": [*DELTAS[:4], None],
    "Quietly": [DELTAS[0], None],
    "Thoughtfully": [*DELTAS[:2], None],
    "Handily": [CALLS[0], None],
    "Nearly": [*DELTAS, None],
    "Pictorially": [{"role": "assistant", "content": "![A cat](v1/files/file-1/content)"}, None],
    "": DELTAS,
}
BEFORE_HEADERS, AFTER_HEADERS, IN_REASONING, IN_TEXT, IN_CALL, BEFORE_DONE = (
    None, b"", b"First this.", b"Ready", b"call_1", b'"finish_reason": "stop"',
)  # fmt: skip
STAGES = (BEFORE_HEADERS, AFTER_HEADERS, IN_REASONING, IN_TEXT, IN_CALL, BEFORE_DONE)
LOST = "The connection to the server was lost."


@pytest.fixture(scope="module")
def upstream_port() -> Iterator[int]:
    with scripted_upstream(ANSWERS) as port:
        yield port


def relay(
    folder: Path, upstream_port: int, *flags: str
) -> contextlib.AbstractContextManager[Served]:
    """A server without a model of its own."""
    upstream = f"http://127.0.0.1:{upstream_port}/v1"
    environment = {"LLM_BACKEND_MODELS": "none", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": upstream}
    return serve(folder, *flags, environment=environment)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream_port: int) -> Iterator[Served]:
    with relay(tmp_path_factory.mktemp("relay"), upstream_port) as served:
        yield served


@pytest.fixture(scope="module")
def proxy(server: Served) -> Iterator[BreakingProxy]:
    with breaking_proxy(int(server.address.rpartition(":")[2])) as one:
        yield one


@pytest.fixture
def page(browser: Browser, proxy: BreakingProxy) -> Iterator[Page]:
    proxy.breaks, proxy.is_down = [], False  # a test that has failed may have left some
    with tab(browser, proxy.address, f"net::ERR_|504|{ENDED_MEANWHILE}") as one:
        one.clock.install()
        open_page(one)
        yield one


def open_page(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#model")).to_have_value("far")


def ask(page: Page, text: str = "Tell me!") -> None:
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


SAID = {
    IN_REASONING: "Thoughts",
    IN_TEXT: "Ready",
    IN_CALL: "Call of weather",
    BEFORE_DONE: "Ready steady go",
}


def wait_said(page: Page, after: bytes) -> None:
    """Returns once the page shows what comes before this place of an answer."""
    expect(page.locator("article.answer.is-growing")).to_contain_text(SAID[after])


def expect_free(page: Page) -> None:
    """The page answers again: a new chat, and a message in it."""
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("article")).to_have_count(0)
    page.get_by_label("Message").fill("")
    ask(page, "Another one?")
    expect(page.locator("article.answer:not(.is-growing)")).to_contain_text("Ready steady go")
    page.get_by_role("button", name="New chat").click()


@pytest.mark.parametrize("how", ["cut", "close"])
def test_a_broken_answer_ends_the_turn_and_keeps_its_text_so_far(page, proxy, how):
    alert = page.get_by_role("alert")
    for after in (BEFORE_HEADERS, AFTER_HEADERS):
        if after is BEFORE_HEADERS and how == "close":
            continue
        proxy.breaks = [Break(how=how, after=after)] * 9  # browsers try each idle connection
        ask(page)
        expect(alert).to_contain_text("The server cannot be reached." if after is None else LOST)
        expect(page.get_by_label("Message")).to_have_value("Tell me!")
        proxy.breaks = []
        alert.get_by_role("button", name="Try again").click()
        expect(page.locator("article.answer:not(.is-growing)")).to_contain_text("Ready steady go")
        expect(page.locator("article.question")).to_have_count(1)
        expect_free(page)
    for after, buttons in ((IN_REASONING, ["Try again"]), (IN_TEXT, ["Go on", "Try again"])):
        proxy.breaks = [Break(how=how, after=after)]
        ask(page)
        wait_said(page, after)
        proxy.see()
        expect(alert).to_contain_text(LOST)
        expect(alert.get_by_role("button")).to_have_text(buttons)
        answer = page.locator("article.answer:not(.is-growing)")
        expect(answer).to_contain_text("Cut short")
        expect(answer.locator("details.collapsible")).to_have_count(1)
        expect(answer.locator(".prose")).to_have_text("Ready" if after == IN_TEXT else "")
        screenshot(page, f"lost-{len(buttons)}")
        alert.get_by_role("button", name="Try again").click()
        expect(answer.locator(".prose")).to_have_text("Ready steady go")
        expect(answer).to_have_count(1)
        expect_free(page)
    proxy.breaks = [Break(how=how, after=BEFORE_DONE)]
    ask(page)
    wait_said(page, BEFORE_DONE)
    proxy.see()
    expect(alert).to_contain_text("The answer is whole, but may not be stored.")
    expect(page.locator("article.answer .note")).to_have_count(0)
    expect_free(page)


def test_a_cut_answer_goes_on_and_is_one_answer_after_a_reload(page, proxy):
    proxy.breaks = [Break(how="cut", after=IN_TEXT)]
    ask(page)
    wait_said(page, IN_TEXT)
    proxy.see()
    page.get_by_role("alert").get_by_role("button", name="Go on").click()
    prose = page.locator("article.answer:not(.is-growing) .prose")
    expect(prose).to_have_text("Ready and on.")
    expect(page.locator("#chats a[aria-current]")).to_have_count(1)
    page.reload()

    expect(prose).to_have_text("Ready and on.")
    expect(page.locator("article")).to_have_count(2)


def test_a_stalled_answer_shows_a_notice_and_can_be_stopped(page, proxy):
    for after in STAGES:
        proxy.breaks = [Break(how="stall", after=after)]
        ask_until(page, after)
        wait_silent(page, after)
        page.keyboard.press("Escape")
        expect(page.get_by_label("Message")).to_have_value("" if after else "Tell me!")
        expect_free(page)


def ask_until(page: Page, after: bytes | None) -> None:
    """Asks, and returns once the page shows what comes before this place of the answer."""
    with page.expect_request("**/v1/chat/completions"):
        ask(page, "How is the weather?" if after == IN_CALL else "Tell me!")
    if after:
        wait_said(page, after)


def wait_silent(page: Page, after: bytes | None) -> None:
    """Returns once the page says that nothing has come for a while."""
    if after:
        page.clock.run_for(15_000)  # in which something was heard
    page.clock.run_for(15_000)
    expect(page.get_by_role("alert")).to_contain_text("Stop")


@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_the_end_of_a_server_or_of_a_proxys_patience_ends_the_turn_at_any_stage(page, proxy, how):
    alert = page.get_by_role("alert")
    answer = page.locator("article.answer:not(.is-growing)")
    for after in STAGES:
        proxy.breaks = [Break(how=how, after=after)]
        ask_until(page, after)
        if how == "timeout":
            wait_silent(page, after)
        if after or how == "timeout":
            proxy.see()
        expect(alert).to_contain_text(LOST if after is not None else UNREACHED[how])
        if after:
            expect(answer).to_contain_text(SAID[after])
        else:
            expect(page.get_by_label("Message")).to_have_value("Tell me!")
        if how == "kill":
            proxy.is_down = False
            page.clock.run_for(3000)
            expect(alert).to_contain_text("The server answers again.")
        alert.get_by_role("button", name="Try again").click()
        expect(answer).to_contain_text("Call of weather" if after == IN_CALL else "Ready steady go")
        expect(alert).to_be_hidden()
        expect(page.locator("article")).to_have_count(2)
        expect_free(page)


UNREACHED = {
    "kill": "The server cannot be reached.",
    "timeout": "A proxy on the way gave up waiting for the server (504).",
}


def test_a_proxy_that_gives_up_waiting_is_named(page, proxy):
    proxy.breaks = [Break(how="504", after=BEFORE_HEADERS)]
    ask(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("A proxy on the way gave up waiting for the server (504).")
    alert.get_by_role("button", name="Try again").click()

    expect(page.locator("article.answer:not(.is-growing)")).to_contain_text("Ready steady go")


def test_an_answer_stays_if_another_one_cannot_be_had(page, proxy):
    ask(page)
    prose = page.locator("article.answer:not(.is-growing) .prose")
    expect(prose).to_have_text("Ready steady go")
    proxy.breaks = [Break(how="cut", after=AFTER_HEADERS)]
    page.get_by_role("button", name="Answer again").click()

    expect(page.get_by_role("alert")).to_contain_text(LOST)
    expect(prose).to_have_text("Ready steady go")


def test_try_again_sends_the_question_that_failed_and_not_an_earlier_one(page, proxy):
    ask(page, "Hello!")
    answer = page.locator("article.answer:not(.is-growing)")
    expect(answer).to_have_count(1)
    proxy.breaks = [Break(how="504", after=BEFORE_HEADERS)]
    ask(page, "And now?")
    retry = page.get_by_role("alert").get_by_role("button")
    expect(retry).to_have_text("Try again")
    requests: list[Request] = []
    is_chat = re.compile(r"/v1/chat/completions$")
    page.on("request", lambda one: requests.append(one) if is_chat.search(one.url) else None)
    for _ in range(5):  # a click is lost if the alert is drawn anew in its midst
        retry.click()
        end_s = time.monotonic() + 15
        while not requests and time.monotonic() < end_s:
            page.wait_for_timeout(100)
        if requests:
            break

    said = [one["content"] for one in requests[0].post_data_json["messages"]]
    assert said == ["Hello!", "Ready steady go", "And now?"]
    expect(answer).to_have_count(2)
    expect(page.get_by_label("Message")).to_have_value("")
    expect(page.get_by_text("2 of 2")).to_have_count(0)


def test_a_button_shows_an_alert_without_the_server_and_works_later(page):
    ask(page)
    answer = page.locator("article.answer:not(.is-growing)")
    expect(answer).to_contain_text("Ready steady go")
    page.route("**/v1/chat/detached", lambda route: route.abort())
    page.get_by_role("button", name="Answer again").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached.")
    page.unroute("**/v1/chat/detached")
    alert.get_by_role("button", name="Try again").click()

    expect(page.get_by_text("2 of 2")).to_be_visible()
    expect(alert).to_be_hidden()


def test_a_regenerated_answer_that_is_empty_can_be_tried_again(page):
    ask(page)
    expect(page.locator("article.answer:not(.is-growing)")).to_contain_text("Ready steady go")
    page.route("**/v1/chat/completions", answer_nothing)
    page.get_by_role("button", name="Answer again").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The model answered nothing.")
    page.unroute("**/v1/chat/completions")
    alert.get_by_role("button", name="Try again").click()

    expect(page.get_by_text("2 of 2")).to_be_visible()


def answer_nothing(route: Route) -> None:
    if route.request.method == "POST":
        route.fulfill(body="data: [DONE]\n\n", content_type="text/event-stream")
    else:
        route.continue_()


def test_a_device_that_was_offline_takes_the_question_up_again(page):
    page.context.set_offline(True)
    ask(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached.")
    page.context.set_offline(False)
    expect(alert).to_contain_text("The server answers again.")
    alert.get_by_role("button", name="Try again").click()

    expect(page.locator("article.answer:not(.is-growing)")).to_contain_text("Ready steady go")


def test_device_that_goes_offline_in_an_answer_follows_it_when_it_is_back(page):
    ask(page, "Slowly, offline")
    wait_said(page, IN_TEXT)
    page.context.set_offline(True)
    page.clock.run_for(45_000)  # twice the server is asked for a sign of life
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server does not answer any more.")
    expect(page.locator("article.answer .prose")).to_have_text("Ready")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    page.clock.run_for(10_000)
    expect(alert).not_to_contain_text("answers again")
    page.context.set_offline(False)
    page.clock.run_for(3000)
    expect(alert).to_contain_text("The server answers again.")
    alert.get_by_role("button", name="Go on").click()

    growing = page.locator("article.answer.is-growing .prose")
    expect(growing).to_have_text("Ready")  # the server goes on with it
    expect(page.locator("article.answer")).to_have_count(1)
    expect(page.locator("article.question")).to_have_count(1)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article.answer:not(.is-growing)")).to_contain_text("Cut short")


def test_a_module_that_did_not_arrive_is_fetched_again(browser, proxy):
    with tab(browser, proxy.address, expected_error="net::ERR_") as page:
        page.route("**/markdown.js", lambda route: route.abort())
        open_page(page)
        ask(page)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The server cannot be reached.")
        page.unroute("**/markdown.js")
        alert.get_by_role("button", name="Try again").click()

        expect(page.locator("article.answer:not(.is-growing)")).to_contain_text("Ready steady go")


def test_a_killed_server_is_waited_for(browser, upstream_port, tmp_path):
    port = free_port()
    with breaking_proxy(port) as proxy, tab(browser, proxy.address, "net::ERR_") as page:
        page.clock.install()
        with relay(tmp_path, upstream_port, "--port", str(port)) as served:
            open_page(page)
            proxy.breaks = [Break(how="stall", after=IN_TEXT)]
            ask(page)
            wait_said(page, IN_TEXT)
            served.process.kill()
            served.process.wait()
        page.clock.run_for(45_000)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The server does not answer any more.")
        expect(page.locator("article.answer .prose")).to_have_text("Ready")
        with relay(tmp_path, upstream_port, "--port", str(port)):
            page.clock.run_for(3000)
            expect(alert).to_contain_text("The server answers again.")
            alert.get_by_role("button", name="Go on").click()

            expect(page.locator("article.answer .prose")).to_have_text("Ready and on.")


@pytest.mark.parametrize(
    ("question", "after", "button"),
    [
        ("Quietly, please", AFTER_HEADERS, "Try again"),
        ("Thoughtfully, please", IN_REASONING, "Try again"),
        ("Slowly, please", IN_TEXT, "Go on"),
        ("Handily, please", IN_CALL, "Try again"),
        ("Nearly all, please", BEFORE_DONE, "Go on"),
    ],
)
def test_answer_of_a_server_killed_at_any_stage_can_be_requested_again(
    browser, upstream_port, tmp_path, question, after, button
):
    port = free_port()
    with tab(browser, f"http://127.0.0.1:{port}", "net::ERR_") as page:
        with relay(tmp_path, upstream_port, "--port", str(port)) as served:
            open_page(page)
            ask(page, question)
            expect(page).to_have_url(re.compile("#/chat/"))  # the answer has begun
            if after:
                wait_said(page, after)
            served.process.kill()
            served.process.wait()
            alert = page.get_by_role("alert")
            expect(alert).to_contain_text(LOST)
        answer = page.locator("article.answer:not(.is-growing)")
        if after:
            expect(answer).to_contain_text(SAID[after])
            expect(answer).to_contain_text("Cut short")
        else:
            expect(page.get_by_label("Message")).to_have_value(question)
        with relay(tmp_path, upstream_port, "--port", str(port)):
            expect(alert).to_contain_text("The server answers again.")
            expect(alert.get_by_role("button").first).to_have_text(button)
            if button == "Go on":
                alert.get_by_role("button", name=button).click()
                expect(answer.locator(".prose")).to_contain_text("and on.")
            expect_free(page)


@pytest.mark.parametrize("how", ["cut", "close"])
def test_an_answer_of_calls_is_shown_even_if_it_breaks(page, proxy, how):
    proxy.breaks = [Break(how=how, after=IN_CALL)]
    ask(page, "How is the weather?")
    wait_said(page, IN_CALL)
    proxy.see()
    answer = page.locator("article.answer:not(.is-growing)")
    expect(answer).to_contain_text("Cut short")
    page.get_by_role("alert").get_by_role("button", name="Try again").click()
    page.get_by_text("Call of weather").click()
    expect(answer.locator("pre")).to_have_text('{"at": "sea"}')
    screenshot(page, "call")
    page.reload()
    page.get_by_text("Call of weather").click()
    expect(answer.locator("pre")).to_have_text('{"at": "sea"}')
    with page.expect_request("**/v1/chat/completions") as asked:
        ask(page, "And now?")

    assert asked.value.post_data_json["messages"][1] == {
        "role": "assistant",
        "content": 'weather({"at": "sea"})',
    }


def test_a_model_elsewhere_is_introduced_as_it_is(page):
    expect(page.locator("#greeting-model")).to_have_text("far is reached through this server.")
    expect(page.locator("#starters")).to_be_hidden()
    expect(page.get_by_role("button", name="Attach files")).to_be_visible()


def test_stopped_relayed_chat_is_listed_as_soon_as_it_is_stored(page):
    ask(page, "Slowly, once")
    wait_said(page, IN_TEXT)
    page.clock.pause_at(page.evaluate("Date.now()") + 10_000)
    page.keyboard.press("Escape")
    wait_stored(page, page.url.rpartition("/")[2])
    listed = page.locator("#chats li:not(.is-running) a", has_text="Slowly, once")
    for _ in range(200):
        page.clock.run_for(1)
        if listed.count():
            break

    expect(listed).to_have_count(1)


def wait_stored(page: Page, conversation: str) -> None:
    """Returns once a completion of the conversation is listed, as it is a moment after a stop."""
    path = f"/v1/chat/completions?metadata[conversation]={conversation}"
    wait_until(lambda: page.request.get(path).json()["data"], page.wait_for_timeout)


def test_an_answer_that_was_stopped_before_its_first_word_is_no_branch_of_the_chat(page):
    ask(page, "Quietly, please")
    expect(page).to_have_url(re.compile("#/chat/"))  # the answer has begun
    page.keyboard.press("Escape")
    expect(page.get_by_label("Message")).to_have_value("Quietly, please")
    wait_stored(page, page.url.rpartition("/")[2])
    with page.expect_response(lambda one: one.request.method == "DELETE"):
        ask(page, "Loudly, please")
    answer = page.locator("article.answer:not(.is-growing)")
    expect(answer).to_contain_text("Ready steady go")
    page.reload()

    expect(answer).to_contain_text("Ready steady go")
    expect(page.get_by_text("2 of 2")).to_have_count(0)


def test_growing_text_is_shown_though_it_begins_as_the_name_of_an_image(page):
    ask(page, "Pictorially!")

    expect(page.locator("article.answer.is-growing .prose")).to_contain_text("A cat")


def compare(page: Page, text: str) -> Locator:
    """Asks both models, and returns their answers."""
    page.goto("/#/compare")
    field = page.get_by_label("Question to both models")
    field.fill(text)
    field.press("Enter")
    return page.locator("#compare-view article")


def test_a_compared_answer_that_was_cut_can_be_tried_again(page, proxy):
    proxy.breaks = [Break(how="cut", after=IN_TEXT)]
    answers = compare(page, "Tell me!")
    expect(answers.locator(".prose")).to_contain_text(["Ready", "Ready"])
    proxy.see()
    alert = page.locator("#compare-view").get_by_role("alert")
    expect(alert).to_contain_text(LOST)
    screenshot(page, "compare-lost")
    with page.expect_request("**/v1/chat/completions") as asked:
        alert.get_by_role("button", name="Try again").click()

    expect(answers.locator(".prose")).to_have_text(["Ready steady go"] * 2)
    expect(alert).to_be_hidden()
    assert [one["content"] for one in asked.value.post_data_json["messages"]] == ["Tell me!"]


def test_a_compared_answer_that_stalls_shows_a_notice_until_its_server_is_gone(page, proxy):
    answers = compare(page, "Slowly, please")
    expect(answers.locator(".prose")).to_have_text(["Ready", "Ready"])
    page.clock.run_for(30_000)  # in the first half something was heard
    alert = page.locator("#compare-view").get_by_role("alert")
    expect(alert).to_have_text(["Nothing has come for a while. Stop keeps what was said."] * 2)
    page.route("**/ping", lambda route: route.abort())
    page.clock.run_for(30_000)  # two checks of each, however long the ones before took

    expect(alert).to_contain_text(["The server does not answer any more."] * 2)
    expect(page.get_by_role("button", name="Ask both")).to_be_visible()


def test_one_stored_chat_is_reached_by_tab_and_the_others_by_arrow_keys(page):
    for text in ("First one", "Second one"):
        page.get_by_role("button", name="New chat").click()
        ask(page, text)
        expect(page.locator("article.answer:not(.is-growing)")).to_contain_text("Ready steady go")
        expect(page.locator("#chats a[aria-current]")).to_have_text(text)
    page.get_by_label("Search chats").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#chats a[aria-current]")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name="First one")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("button", name="Delete First one")).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_count(1)
    expect(page.locator("#chats li :focus")).to_have_count(0)  # "Older chats", or behind the list
