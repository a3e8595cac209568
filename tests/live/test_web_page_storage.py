"""Storage of the chat page: several tabs of one chat, lists of several pages, late lists."""

import re
from collections.abc import Callable

import openai
from playwright.sync_api import Page, Request, Route, expect

from tests.browser import tab
from tests.live.conftest import delete_chats
from tests.live.test_web_page import say, wait_answered
from tests.live.test_web_page_chats import store_chat


def in_pages_of_one(route: Route) -> None:
    """The page's own request for a list, of which it gets one object at a time."""
    route.continue_(url=re.sub(r"\blimit=(40|100)\b", "limit=1", route.request.url))


def is_delete(request: Request) -> bool:
    return request.method == "DELETE"


def stored_ids(client: openai.OpenAI, page: Page) -> set[str]:
    """The stored completions of the chat that the page shows."""
    conversation = page.url.rpartition("/")[2]
    metadata = {"client": "web", "conversation": conversation}
    return {one.id for one in client.chat.completions.list(metadata=metadata, limit=100)}


def ask_otherwise(page: Page, text: str) -> None:
    page.get_by_role("button", name="Edit and resend").click()
    page.get_by_label("Edited text").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("article.question p")).to_have_text(text)
    wait_answered(page)


def test_a_chat_keeps_the_questions_of_another_tab(page):
    say(page, "Hello one!")
    wait_answered(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("article.answer")).to_have_count(1)
    with other.expect_request(is_delete):  # of the chat's first state, which the second one holds
        say(other, "Hello two!")
    wait_answered(other, 2)
    say(page, "Hello three!")
    wait_answered(page, 2)
    with page.expect_request(is_delete):
        say(page, "Hello four!")
    wait_answered(page, 3)
    other.reload()

    expect(other.locator("article.question", has_text="Hello four!")).to_be_visible()
    other.get_by_role("button", name="Earlier question").click()
    expect(other.locator("article.question p")).to_have_text(["Hello one!", "Hello two!"])


def test_a_value_for_which_storage_has_no_room_lasts_until_the_page_is_closed(page):
    page.evaluate(
        """async () => {
            localStorage.setItem("llm-backend.a", "short");
            for (let size = 2 ** 20; size; size >>= 1)
                try { for (let n = 0; ; n++) localStorage[`${size} ${n}`] = "x".repeat(size); }
                catch { continue; }
            window.storage = (await import("/web/storage.js")).persistent;
        }"""
    )
    found = page.evaluate(
        "() => { storage.set('a', 'long '.repeat(99)); const all = storage.get('a');"
        " const kept = localStorage.getItem('llm-backend.a');"
        " localStorage.clear(); storage.set('a', '');"
        " return [all.length, kept, storage.get('a')]; }"
    )

    assert found == [495, "short", None]


def test_a_chat_of_several_pages_is_deleted_as_a_whole(page, client):
    say(page, "Hello Doreen!")
    wait_answered(page)
    for text in ("Hello Dorothy!", "Hello Dolores!"):
        ask_otherwise(page, text)
    there = stored_ids(client, page)
    assert len(there) == 3
    page.route("**/v1/chat/completions?*conversation*", in_pages_of_one)
    page.reload()
    expect(page.get_by_text("3 of 3")).to_be_visible()
    item = page.locator("#chats li", has_text="Hello Doreen!")
    item.hover()
    item.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(item).to_have_count(0)
    assert not there & {one.id for one in client.chat.completions.list(limit=100)}


def test_all_files_of_a_chat_are_shown_and_deleted_with_it(browser, library_server):
    files = [
        {"name": f"{name}.md", "mimeType": "text/markdown", "buffer": b"A lamp hums.\n"}
        for name in ("one", "two")
    ]
    with tab(browser, library_server.address) as page:
        page.goto("/")
        expect(page.get_by_role("button", name="Attach files")).to_be_visible()
        page.locator("#files").set_input_files(files)
        attached = page.get_by_label("Attached files").locator("li:not(.is-waiting)")
        expect(attached).to_have_count(2)
        say(page, "Hello files!")
        wait_answered(page)
        page.route("**/vector_stores/*/files?*", in_pages_of_one)
        page.reload()
        expect(attached).to_have_count(2)
        item = page.locator("#chats li", has_text="Hello files!")
        item.hover()
        item.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(item).to_have_count(0)

        left = {one["filename"] for one in page.request.get("/v1/files").json()["data"]}
        assert not left & {"one.md", "two.md"}


def held(page: Page, address: str) -> Callable[[], None]:
    """Holds the answers of an address back until this is called."""
    routes: list[Route] = []
    page.route(address, lambda route: routes.append(route))

    def release() -> None:
        for route in routes:
            in_pages_of_one(route)
        page.unroute(address)

    return release


def test_older_chats_that_come_late_are_not_added_to_what_was_found(page):
    for text in ("Hello Erin!", "Hello Frank!", "Hello Grace!"):
        page.get_by_role("button", name="New chat").click()
        say(page, text)
        wait_answered(page)
        expect(page.locator("#chats a[aria-current]")).to_have_text(text)
    page.route(re.compile(r"limit=40"), in_pages_of_one)
    page.reload()
    links = page.locator("#chats a")
    expect(links).to_have_text(["Hello Grace!"])
    release = held(page, "**/v1/chat/completions?*after=*")
    with page.expect_request("**/v1/chat/completions?*after=*") as asked:
        page.get_by_role("button", name="Older chats").click()
    page.get_by_label("Search chats").fill("Erin")
    expect(links).to_have_count(1)
    expect(links.locator("mark")).to_have_text(["Erin"])
    with page.expect_event("requestfinished", lambda one: one == asked.value):
        release()
    page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which the page is drawn

    expect(links).to_have_count(1)
    page.get_by_label("Search chats").fill("")
    expect(links).to_have_text(["Hello Grace!"])
    page.get_by_role("button", name="Older chats").click()
    expect(links).to_have_text(["Hello Grace!", "Hello Frank!"])


def test_older_chats_are_listed_though_the_last_one_of_the_list_is_deleted(browser, server):
    delete_chats(server)
    with tab(browser, server.address, expected_error="400") as page:
        for title in ("Stored first", "Stored second", "Stored third"):
            store_chat(page, title)
        page.route(re.compile(r"limit=40"), in_pages_of_one)
        page.goto("/")
        links, older = page.locator("#chats a"), page.get_by_role("button", name="Older chats")
        expect(links).to_have_text(["Stored third"])
        older.click()
        expect(links).to_have_text(["Stored third", "Stored second"])
        item = page.locator("#chats li", has_text="Stored second")
        item.hover()
        item.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(links).to_have_text(["Stored third"])
        older.evaluate("button => (button.dataset.drawn = 'before')")
        older.click()
        expect(page.locator("[data-drawn]")).to_have_count(0)  # the list is drawn anew
        older.click()

        expect(links).to_have_text(["Stored third", "Stored first"])
        expect(page.get_by_role("alert")).to_have_count(0)


def compose(page: Page, text: str) -> None:
    """Has an input method write a text, and presses the Enter key that chooses it."""
    session = page.context.new_cdp_session(page)
    end = len(text)
    composed = {"text": text, "selectionStart": end, "selectionEnd": end}
    session.send("Input.imeSetComposition", composed)
    page.keyboard.press("Enter")


def test_the_enter_key_of_an_input_method_neither_opens_nor_renames_a_chat(page):
    say(page, "Hello Heidi!")
    wait_answered(page)
    page.get_by_role("button", name="New chat").click()
    item = page.locator("#chats li", has_text="Hello Heidi!")
    page.get_by_label("Search chats").focus()
    with page.expect_response("**/v1/chat/search?*"):
        compose(page, "Heidi")
    expect(item.locator("mark")).to_have_text(["Heidi"])

    assert page.url.endswith("#/")
    item.hover()
    item.get_by_role("button", name="Rename").click()
    compose(page, "Greetings")
    expect(page.get_by_label("Title")).to_be_focused()
