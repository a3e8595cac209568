"""Addresses of the chat page: those that could not be opened, and the way back from other views."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.browser import tab
from tests.live.test_web_page import say, wait_answered, without_end
from tests.live.test_web_page_left_chats import (
    BUSY,
    COMPLETIONS,
    GROWING,
    chats_named,
    delete,
    hold_posts,
    is_question,
    new_chat,
    stored_chat,
    wait_held,
)
from tests.serving import Served, serve

KEY, OTHER_KEY = "sk-right", "sk-other"
LOADED = re.compile(r"/v1/chat/completions\?limit=100")  # the requests of a chat that is opened


@pytest.fixture
def page(browser: Browser, endless_server: Served) -> Iterator[Page]:
    with tab(browser, endless_server.address, "404|503|ERR_FAILED|ERR_INTERNET") as one:
        one.goto("/")
        expect(one.locator("#model")).to_have_value("builtin")
        yield one


@pytest.fixture(scope="module")
def closed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    keys = {"LLM_BACKEND_API_KEYS": f"{KEY}, {OTHER_KEY}"}
    with serve(tmp_path_factory.mktemp("closed"), environment=keys) as served:
        yield served


def enter_key(page: Page, key: str = KEY) -> None:
    field = page.get_by_label("API key")
    field.fill(key)
    field.press("Enter")


def test_address_that_needs_a_key_is_opened_once_the_key_is_entered(browser, closed_server):
    with tab(browser, closed_server.address, "401") as page:
        page.goto("/")
        enter_key(page)
        expect(page.locator("#model")).to_have_value("builtin")
        say(page, "Is it opened?")
        wait_answered(page)
        path = page.url.partition("#")[2]
    with tab(browser, closed_server.address, "401") as page:
        page.goto(f"/#{path}")
        expect(page.get_by_role("alert")).to_contain_text("needs an API key")
        enter_key(page)

        expect(page.locator("article.question p")).to_have_text("Is it opened?")
    with tab(browser, closed_server.address, "401") as page:
        page.goto("/#/operations")
        expect(page.get_by_role("alert")).to_contain_text("needs an API key")
        enter_key(page)

        expect(page.locator("#operations-view table").first).to_be_visible()


def test_another_key_stops_what_was_left_answering(browser, closed_server):
    with tab(browser, closed_server.address, "401") as page:
        page.goto("/")
        enter_key(page)
        expect(page.locator("#model")).to_have_value("builtin")
        held = hold_posts(page)
        say(page, "Is it stopped?")
        wait_held(page, held)
        new_chat(page)
        expect(chats_named(page, "Is it stopped?")).to_have_count(1)
        page.get_by_role("button", name="Options").click()
        with page.expect_event("requestfailed", lambda one: one == held[0].request):
            enter_key(page, OTHER_KEY)

        expect(chats_named(page, "Is it stopped?")).to_have_count(0)


def test_chat_that_could_not_be_opened_is_opened_by_its_link(page):
    say(page, "Is the link dead?")
    wait_answered(page)
    new_chat(page)
    link = chats_named(page, "Is the link dead?").get_by_role("link")
    page.route(LOADED, lambda route: route.fulfill(status=503, json=BUSY))
    link.click()
    expect(page.get_by_role("alert")).to_contain_text("Busy today.")
    page.unroute(LOADED)
    link.click()

    expect(page.locator("article.question p")).to_have_text("Is the link dead?")


def test_chat_is_opened_when_the_server_answers_again(page):
    say(page, "Is it there again?")
    wait_answered(page)
    new_chat(page)
    link = chats_named(page, "Is it there again?").get_by_role("link")
    page.context.set_offline(True)
    link.click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.context.set_offline(False)

    expect(page.locator("article.question p")).to_have_text("Is it there again?")


def test_view_that_could_not_be_loaded_is_opened_when_the_server_answers_again(page):
    page.context.set_offline(True)
    page.get_by_role("link", name="Operations").click()
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    page.context.set_offline(False)

    expect(page.locator("#operations-view table").first).to_be_visible()


def open_slowly(page: Page, title: str) -> list[Route]:
    """Opens a chat, whose first request is held while another chat is still shown."""
    link = chats_named(page, title).get_by_role("link")
    conversation = (link.get_attribute("href") or "").rpartition("/")[2]
    held: list[Route] = []
    page.route(
        re.compile(f"{LOADED.pattern}.*{conversation}"), lambda one: held.append(one), times=1
    )
    link.click()
    wait_held(page, held)
    return held


def test_message_to_a_chat_that_opens_slowly_is_sent_to_no_other(page):
    stored_chat(page, "Which one opens slowly?")
    new_chat(page)
    stored_chat(page, "Which one is opened instead?")
    held = open_slowly(page, "Which one opens slowly?")
    say(page, "Is it for you?")
    chats_named(page, "Which one is opened instead?").get_by_role("link").click()
    expect(page.locator("article.question p")).to_have_text("Which one is opened instead?")
    held[0].continue_()
    page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which it is sent

    expect(page.locator("article.question p")).to_have_text("Which one is opened instead?")
    expect(page.get_by_label("Message")).to_have_value("Is it for you?")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()


def test_chat_is_not_answered_again_while_another_one_opens(page):
    stored_chat(page, "Which one comes late?")
    new_chat(page)
    stored_chat(page, "Which one is answered again?")
    held = open_slowly(page, "Which one comes late?")
    requests: list[Request] = []
    page.on("request", lambda one: is_question(one) and requests.append(one))
    page.get_by_role("button", name="Answer again").click()
    page.locator("article.question").hover()
    page.get_by_role("button", name="Edit and resend").click()
    page.get_by_label("Edited text").fill("Is it asked otherwise?")
    page.keyboard.press("Enter")
    held[0].continue_()
    expect(page.locator("article.question p")).to_have_text("Which one comes late?")
    page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which one is sent

    assert requests == []
    expect(page.locator("article.question p")).to_have_text("Which one comes late?")
    wait_answered(page)


def look_at_the_status_during(page: Page, question: str) -> list[Route]:
    """Opens the status while the request of a new chat's question is held back."""
    held = hold_posts(page)
    say(page, question)
    wait_held(page, held)
    page.get_by_role("link", name="Status").click()
    expect(page.locator("#status-view")).to_be_visible()
    return held


def test_new_chat_is_there_after_a_look_at_the_status(page):
    held = look_at_the_status_during(page, "Is it dropped?")
    page.go_back()

    expect(page.locator("article.question p")).to_have_text("Is it dropped?")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    held[0].continue_()
    wait_answered(page)
    page.get_by_role("link", name="Status").click()
    new_chat(page)
    expect(page.locator("#greeting")).to_be_visible()


def test_system_prompt_of_a_new_chat_is_there_after_a_look_at_the_status(page):
    page.get_by_role("button", name="Options").click()
    page.get_by_label("System prompt").fill("You are brief.")
    page.get_by_role("link", name="Status").click()
    expect(page.locator("#status-view")).to_be_visible()
    page.go_back()
    expect(page.locator("#greeting")).to_be_visible()

    expect(page.locator("#system")).to_have_value("You are brief.")
    page.get_by_role("link", name="Status").click()
    new_chat(page)
    expect(page.locator("#system")).to_have_value("")


def test_answer_that_begins_beside_the_status_is_there_on_return(page):
    held = look_at_the_status_during(page, "Does it begin?")
    held[0].continue_()
    expect(chats_named(page, "Does it begin?").locator("button")).to_have_count(2)  # stored
    page.go_back()

    expect(page.locator("article.question p")).to_have_text("Does it begin?")
    wait_answered(page)
    assert "#/chat/" in page.url


def test_chat_that_is_deleted_beside_the_status_is_closed(page):
    item = stored_chat(page, "Is it closed?")
    page.get_by_role("link", name="Status").click()
    expect(page.locator("#status-view")).to_be_visible()
    delete(item)
    expect(item).to_have_count(0)
    page.go_back()

    expect(page.locator("article")).to_have_count(0)
    expect(page.get_by_role("alert")).to_contain_text("not stored any more")


def test_chat_that_is_left_and_opened_again_is_followed_once(page):
    page.route(COMPLETIONS, without_end)
    say(page, "Is it drawn twice?")
    expect(page.locator(GROWING)).not_to_be_empty()
    address = page.url
    new_chat(page)
    held: list[Route] = []
    page.route(LOADED, lambda route: held.append(route))
    page.goto(address)
    wait_held(page, held)
    page.goto(page.url.partition("#")[0] + "#/")
    expect(page.locator("#chats a[aria-current]")).to_have_count(0)  # the page has left the chat
    page.goto(address)
    wait_held(page, held, 2)
    page.unroute(LOADED)
    followed: list[str] = []
    page.on("request", lambda one: "/chat/detached/" in one.url and followed.append(one.method))
    held[1].continue_()
    expect(page.locator(GROWING)).not_to_be_empty()
    held[0].continue_()
    page.wait_for_timeout(1000)

    assert followed == ["GET"]
    expect(page.locator("article.answer")).to_have_count(1)
    page.get_by_role("button", name="Stop").click()
    wait_answered(page)
