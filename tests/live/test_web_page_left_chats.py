"""The chat page while its chats are left, opened, renamed and deleted during requests."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import APIResponse, Browser, Page, Request, Route, expect

from tests.browser import ENDED_MEANWHILE, tab
from tests.live.test_web_page import say, wait_answered, without_end
from tests.patience import wait_until
from tests.serving import ENDLESS, Served, serve

COMPLETIONS = re.compile(r"/v1/chat/completions$")
CHAT_LIST = re.compile(r"/v1/chat/completions\?order=desc")
STORED_CHAT = re.compile(r"/v1/chat/completions/")
DETACHED = "**/v1/chat/detached"
BUSY = {"error": {"message": "Busy today.", "type": "server_error", "code": None}}
GROWING = "article.answer.is-growing .prose"


@pytest.fixture
def page(browser: Browser, endless_server: Served) -> Any:
    with tab(browser, endless_server.address, f"404|50[34]|ERR_FAILED|{ENDED_MEANWHILE}") as one:
        one.goto("/")
        expect(one.locator("#model")).to_have_value("builtin")
        yield one


def hold_posts(page: Page, address: re.Pattern[str] | str = COMPLETIONS) -> list[Route]:
    """The requests of the page for answers, which wait for the test."""
    held: list[Route] = []
    page.route(address, lambda route: hold(route, held))
    return held


def hold(route: Route, held: list[Route], method: str = "POST") -> None:
    if route.request.method == method:
        held.append(route)
    else:
        route.continue_()


def wait_held(page: Page, held: list[Route], count: int = 1) -> None:
    for _ in range(600):
        if len(held) >= count:
            return
        page.wait_for_timeout(20)
    raise AssertionError("the page has not sent its request")


def new_chat(page: Page) -> None:
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("article")).to_have_count(0)


def chats_named(page: Page, title: str) -> Any:
    return page.locator("#chats li", has_text=title)


def stored_chat(page: Page, question: str) -> Any:
    """Returns the item of a new chat in the list, once the chat is stored: then it has buttons."""
    say(page, question)
    wait_answered(page)
    item = chats_named(page, question)
    expect(item.locator("button")).to_have_count(2)
    return item


def test_question_of_a_chat_that_is_left_before_the_server_has_it_is_answered(page):
    held = hold_posts(page)
    say(page, "Was this question lost?")
    wait_held(page, held)
    new_chat(page)
    page.wait_for_timeout(200)
    held[0].continue_()
    item = chats_named(page, "Was this question lost?")
    item.get_by_role("link").click()

    expect(page.locator("article.question p")).to_have_text("Was this question lost?")
    wait_answered(page)


def test_chat_that_is_opened_again_before_its_answer_begins_shows_its_question(page):
    say(page, "Which chat is it?")
    wait_answered(page)
    address = page.url
    held = hold_posts(page)
    say(page, "Is it shown again?")
    wait_held(page, held)
    new_chat(page)
    page.goto(address)
    expect(page.locator("article.question p").last).to_have_text("Is it shown again?")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    held[0].continue_()

    wait_answered(page, 2)
    expect(page.locator("article.answer")).to_have_count(2)


def test_chat_that_was_left_and_lost_its_connection_shows_the_answer_of_the_server(page):
    held = hold_posts(page)
    say(page, "Is it asked twice?")
    wait_held(page, held)
    new_chat(page)
    answer = held[0].fetch()
    assert answer.ok
    held[0].fulfill(status=504, body="gateway timeout")
    expect(page.get_by_role("alert")).to_contain_text("Is it asked twice?: ")
    chats_named(page, "Is it asked twice?").get_by_role("link").click()

    wait_answered(page)
    page.wait_for_timeout(300)
    assert len(held) == 1
    expect(chats_named(page, "Is it asked twice?").locator("button")).to_have_count(2)


def test_failure_of_a_chat_that_was_left_offers_to_send_its_question_again(page):
    held = hold_posts(page)
    say(page, "Does this one fail?")
    wait_held(page, held)
    new_chat(page)
    page.get_by_label("Message").fill("A draft")
    page.wait_for_timeout(200)
    held[0].fulfill(status=503, json=BUSY)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Does this one fail?: Busy today.")
    page.unroute(COMPLETIONS)
    alert.get_by_role("button", name="Try again").click()

    wait_answered(page)
    expect(page.locator("article.question p")).to_have_text("Does this one fail?")
    expect(page.get_by_label("Message")).to_have_value("A draft")


def fail_next_post(page: Page) -> None:
    failed: list[Route] = []

    def fail(route: Route) -> None:
        if failed or route.request.method != "POST":
            route.continue_()
            return
        failed.append(route)
        route.fulfill(status=503, json=BUSY)

    page.route(COMPLETIONS, fail)


def test_trying_an_edited_question_again_keeps_a_draft(page):
    say(page, "First?")
    wait_answered(page)
    fail_next_post(page)
    page.locator("article.question").hover()
    page.get_by_role("button", name="Edit and resend").click()
    page.get_by_label("Edited text").fill("Second?")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Busy today.")
    page.get_by_label("Message").fill("A draft of something else")
    alert.get_by_role("button", name="Try again").click()

    expect(page.get_by_text("2 of 2").first).to_be_visible()
    wait_answered(page)
    expect(page.get_by_label("Message")).to_have_value("A draft of something else")


def test_question_that_was_corrected_after_its_failure_names_the_chat(page):
    fail_next_post(page)
    say(page, "Is it wrogn?")
    expect(page.get_by_role("alert")).to_contain_text("Busy today.")
    expect(page.get_by_label("Message")).to_have_value("Is it wrogn?")
    expect(page.get_by_role("heading", name="New chat")).to_be_attached()
    say(page, "Is it wrong?")
    wait_answered(page)

    expect(page.get_by_role("heading", name="Is it wrong?")).to_be_attached()
    expect(chats_named(page, "Is it wrong?").locator("button")).to_have_count(2)


def test_an_edited_question_that_failed_leaves_nothing_in_the_field_once_it_is_answered(page):
    document = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"Some notes."}
    page.locator("#files").set_input_files(document)
    expect(page.locator("#documents li")).to_have_count(1)
    say(page, "First?")
    wait_answered(page)
    fail_next_post(page)
    page.locator("article.question").hover()
    page.get_by_role("button", name="Edit and resend").click()
    page.get_by_label("Edited text").fill("Second?")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Busy today.")
    expect(page.get_by_label("Message")).to_have_value("Second?")
    alert.get_by_role("button", name="Try again").click()

    expect(page.get_by_text("2 of 2").first).to_be_visible()
    expect(page.get_by_label("Message")).to_have_value("")
    expect(page.locator("#documents li")).to_have_count(0)


def test_edited_text_stays_in_its_form_while_an_answer_is_in_progress(page):
    say(page, "First?")
    wait_answered(page)
    page.locator("article.question").hover()
    page.get_by_role("button", name="Edit and resend").click()
    page.get_by_label("Edited text").fill("First, but better?")
    page.route(COMPLETIONS, without_end)
    say(page, "Say much!")
    expect(page.locator(GROWING)).not_to_be_empty()
    page.get_by_role("button", name="Ask", exact=True).click()

    expect(page.get_by_text("Wait for the end of the answer")).to_be_visible()
    expect(page.get_by_label("Edited text")).to_have_value("First, but better?")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    page.unroute(COMPLETIONS)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("2 of 2").first).to_be_visible()
    wait_answered(page)
    expect(page.locator("article.question p")).to_have_text("First, but better?")


def test_form_of_an_edited_question_outlives_an_answer_that_is_generated_again(page):
    say(page, "Is it edited?")
    wait_answered(page)
    held = hold_posts(page)
    page.locator("article.question").hover()
    page.get_by_role("button", name="Edit and resend").click()
    field = page.get_by_label("Edited text")
    field.fill("Is it really edited?")
    page.get_by_role("button", name="Answer again").click()
    wait_held(page, held)
    field.focus()
    held[0].continue_()
    expect(page.get_by_text("2 of 2")).to_be_visible()

    expect(field).to_have_value("Is it really edited?")
    expect(field).to_be_focused()
    page.unroute(COMPLETIONS)
    page.keyboard.press("Enter")
    expect(page.locator("article.question p")).to_have_text("Is it really edited?")
    wait_answered(page)


def test_files_of_the_next_message_stay_when_a_question_fails(page):
    held = hold_posts(page)
    say(page, "Does it fail?")
    wait_held(page, held)
    document = {"name": "next.txt", "mimeType": "text/plain", "buffer": b"Some notes."}
    page.locator("#files").set_input_files(document)
    expect(page.locator("#documents li")).to_have_text("next.txt")
    held[0].fulfill(status=503, json=BUSY)
    expect(page.get_by_role("alert")).to_contain_text("Busy today.")

    expect(page.locator("#documents li")).to_have_text("next.txt")
    expect(page.locator("article.question p")).to_have_text("Does it fail?")


@pytest.mark.parametrize("by_link", [True, False])
def test_a_running_answer_that_cannot_be_followed_can_be_tried_again(page, by_link):
    question = f"Is it followed by a link ({by_link})?"
    page.route(COMPLETIONS, without_end)
    say(page, question)
    expect(page.locator(GROWING)).not_to_be_empty()
    address = page.url
    new_chat(page)
    page.route("**/v1/chat/detached/*", lambda route: route.abort(), times=1)
    page.goto(address)
    alert = page.get_by_role("alert")
    expect(alert).not_to_be_empty()
    expect(alert).not_to_contain_text("The page failed")
    expect(page.locator("#greeting")).to_be_visible()
    if by_link:
        chats_named(page, question).get_by_role("link").click()
    else:
        alert.get_by_role("button", name="Try again").click()

    expect(page.locator(GROWING)).not_to_be_empty()
    expect(page.locator("article.question p")).to_have_text(question)
    page.get_by_role("button", name="Stop").click()
    wait_answered(page)


@pytest.mark.parametrize("detaches", [True, False])
def test_a_chat_is_deleted_with_the_answer_that_its_page_has_just_stopped(
    browser, tmp_path, detaches
):
    limit = {} if detaches else {"LLM_BACKEND_DETACHED_CHATS_LIMIT": "0"}
    with (
        serve(tmp_path, environment={**ENDLESS, **limit}) as served,
        tab(browser, served.address, "404") as page,
    ):
        page.goto("/")
        expect(page.locator("#model")).to_have_value("builtin")
        item = stored_chat(page, "Is it stored again?")
        page.route(COMPLETIONS, without_end)
        say(page, "Say much!")
        expect(page.locator(GROWING)).not_to_be_empty()
        delete(item)
        expect(page.locator("article")).to_have_count(0)
        page.wait_for_timeout(1500)
        stored = page.request.get("/v1/chat/completions").json()["data"]

    assert stored == []


@pytest.mark.parametrize("is_left", [True, False])
def test_an_answer_is_generated_again_once_and_in_its_own_chat(page, is_left):
    say(page, "Once?")
    wait_answered(page)
    requests: list[Request] = []
    page.on("request", lambda one: is_question(one) and requests.append(one))
    held: list[Route] = []
    page.route(DETACHED, lambda route: held.append(route))
    again = page.get_by_role("button", name="Answer again")
    again.click()
    if is_left:
        new_chat(page)
    else:
        again.click()
    wait_held(page, held, 1 if is_left else 2)
    for route in held:
        route.continue_()
    page.unroute(DETACHED)
    if not is_left:
        expect(page.get_by_text("2 of 2")).to_be_visible()
    page.wait_for_timeout(500)

    assert len(requests) == (0 if is_left else 1)
    expect(page.locator("article")).to_have_count(0 if is_left else 2)


def is_question(request: Request) -> bool:
    return request.method == "POST" and bool(COMPLETIONS.search(request.url))


def test_a_chat_that_is_deleted_while_it_is_answered_is_gone(page):
    item = stored_chat(page, "Shall it be gone?")
    page.route(COMPLETIONS, without_end)
    say(page, "Say much!")
    expect(page.locator(GROWING)).not_to_be_empty()
    delete(item)
    expect(page.locator("article")).to_have_count(0)
    expect(item).to_have_count(0)
    page.wait_for_timeout(1500)
    page.reload()

    expect(page.locator("#model")).to_have_value("builtin")
    page.wait_for_timeout(300)
    expect(item).to_have_count(0)


def delete(item: Any) -> None:
    item.hover()
    item.get_by_role("button", name="Delete").click()
    item.page.get_by_role("dialog").get_by_role("button", name="Delete").click()


def test_a_deleted_chat_is_not_listed_by_a_list_that_was_requested_before(page):
    item = stored_chat(page, "Shall it be listed?")
    held: list[tuple[Route, APIResponse]] = []
    page.route(CHAT_LIST, lambda route: held.append((route, route.fetch())))
    page.get_by_text("Chats of other clients too").click()
    for _ in range(600):
        if held:
            break
        page.wait_for_timeout(20)
    delete(item)
    expect(page.locator("article")).to_have_count(0)
    expect(item).to_have_count(0)
    for route, response in held:
        route.fulfill(response=response)
    page.wait_for_timeout(500)

    expect(item).to_have_count(0)


def test_a_chat_that_is_listed_again_while_it_is_deleted_is_removed(page):
    item = stored_chat(page, "Is it listed twice?")
    held: list[Route] = []
    page.route(STORED_CHAT, lambda route: hold(route, held, "DELETE"))
    delete(item)
    wait_held(page, held)
    with page.expect_response(CHAT_LIST):
        page.get_by_text("Chats of other clients too").click()
    page.wait_for_timeout(300)
    for route in held:
        route.continue_()

    expect(page.locator("article")).to_have_count(0)
    expect(item).to_have_count(0)


@pytest.mark.parametrize("how", ["is left", "is loaded again", "stays"])
def test_a_chat_that_is_renamed_while_it_is_answered_keeps_its_title(page, how):
    question, title = f"What was its name when it {how}?", f"Another name of one that {how}"
    item = stored_chat(page, question)
    page.route(COMPLETIONS, without_end)
    say(page, "Say much!")
    expect(page.locator(GROWING)).not_to_be_empty()
    item.hover()
    item.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill(title)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    address = page.url
    if how == "is left":
        new_chat(page)
        page.goto(address)
    if how == "is loaded again":
        page.reload()
    expect(page.locator(GROWING)).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    wait_answered(page, 2)
    expect(page.locator("#chats li:not(.is-running)", has_text=title)).to_be_visible()
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    page.wait_for_timeout(1000)
    page.goto("about:blank")
    page.goto(address)

    expect(page.get_by_role("heading", name=title)).to_be_visible()
    expect(page.locator("article.answer")).to_have_count(2)


def test_title_given_during_an_answer_is_kept_though_the_list_is_of_found_chats(page):
    item = stored_chat(page, "Does it keep its name?")
    page.route(COMPLETIONS, without_end)
    say(page, "Say much!")
    expect(page.locator(GROWING)).not_to_be_empty()
    item.hover()
    item.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Another name of it")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Another name of it")).to_be_visible()
    new_chat(page)
    page.get_by_label("Search chats").fill("unheard-of")
    expect(page.get_by_text("No chat has these words.")).to_be_visible()
    for one in running(page):
        page.request.post(f"/v1/chat/detached/{one['id']}/cancel")
    wait_until(lambda: not running(page), page.wait_for_timeout)
    with page.expect_response("**/v1/chat/search?*"):
        page.get_by_text("Chats of other clients too").click()
    page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which it is listed
    page.get_by_label("Search chats").fill("")

    expect(chats_named(page, "Another name of it").locator("button")).to_have_count(2)
    expect(chats_named(page, "Does it keep its name?")).to_have_count(0)


def running(page: Page) -> Any:
    """Returns the chats that the server answers."""
    return page.request.get("/v1/chat/detached").json()["data"]


def test_escape_on_another_view_stops_no_answer(page):
    page.route(COMPLETIONS, without_end)
    say(page, "Say much!")
    expect(page.locator(GROWING)).not_to_be_empty()
    page.get_by_role("link", name="Status").click()
    expect(page.get_by_role("heading", name="Status")).to_be_visible()
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    page.go_back()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    wait_answered(page)


def test_a_view_that_is_left_and_opened_again_while_it_is_loaded_is_shown_once(page):
    held: list[Route] = []
    page.route("**/status.js*", lambda route: held.append(route))
    requests: list[Request] = []
    page.on("request", lambda one: one.url.endswith("/status") and requests.append(one))
    status = page.get_by_role("link", name="Status")
    status.click()
    wait_held(page, held)
    page.get_by_role("link", name="Compare").click()
    status.click()
    held[0].continue_()
    expect(page.locator("#status-view h2").first).to_be_visible()
    page.wait_for_timeout(500)

    assert len(requests) == 1


def test_the_speed_has_no_peak_after_the_status_was_away(page):
    work = {"running": 1, "waiting": 0, "generated_tokens": 90_000, "cell_tokens": 0}
    model = {"id": "one", "state": "ready", "work": {**work, "admitted_tokens": 1}}
    event = {"status": "processing", "models": [model], "drawings": []}
    body = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"
    answers = [(200, body), (503, json.dumps(BUSY)), (200, body), (200, body)]

    def answer(route: Route) -> None:
        status, text = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = "text/event-stream" if status == 200 else "application/json"
        route.fulfill(status=status, body=text, content_type=kind)

    page.route("**/status", answer)
    page.get_by_role("link", name="Status").click()
    speed = page.locator("#status-view dd").first
    expect(speed).to_have_text("0.0")
    shown = set()
    for _ in range(80):
        shown.add(speed.inner_text())
        page.wait_for_timeout(100)

    assert shown == {"0.0"}


def test_selected_chats_are_saved_though_one_is_deleted_by_now(page):
    for question in ("Kept?", "Kept too?"):
        say(page, question)
        wait_answered(page)
        new_chat(page)
    other = page.request.post(
        "/v1/chat/completions",
        data={"model": "builtin", "store": True, "messages": [{"role": "user", "content": "Hm?"}]},
    ).json()
    page.reload()
    page.get_by_label("Chats of other clients too").check()
    expect(page.locator(f'#chats a[href="#/stored/{other["id"]}"]')).to_be_visible()
    page.get_by_role("button", name="Select chats").click()
    page.locator("#select-all").click()
    page.request.delete(f"/v1/chat/completions/{other['id']}")
    with page.expect_download() as download:
        page.locator("#save-selected").click()
    chats = json.loads(download.value.path().read_text())["chats"]

    assert {"Kept?", "Kept too?"} <= {one["title"] for one in chats}


def test_a_chat_that_could_not_be_deleted_stays_open(page):
    item = stored_chat(page, "Shall it stay?")
    page.get_by_role("button", name="Select chats").click()
    item.get_by_role("checkbox").check()
    page.route(re.compile("/v1/chat/completions/"), refuse_deletion)
    page.locator("#delete-selected").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("alert")).to_contain_text("Busy today.")
    page.wait_for_timeout(300)

    expect(page.locator("article.question p")).to_have_text("Shall it stay?")


def refuse_deletion(route: Route) -> None:
    if route.request.method == "DELETE":
        route.fulfill(status=503, json=BUSY)
    else:
        route.continue_()
