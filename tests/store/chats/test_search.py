"""The search of stored chats finds words in titles, messages and answers, on both databases."""

import pytest

from llm_backend.store import ChatSearch, ChatStore, Database, NewChat, Owner, as_owner
from llm_backend.store.chats.words import excerpt, sought_words, words_of
from tests.store.chat_values import a_chat


@pytest.fixture
def search(database: Database) -> ChatSearch:
    return ChatSearch(database, limit_characters=1000)


def said(content: object, answer: str = "Yes.", **more):
    message = {"role": "assistant", "content": answer}
    chat = a_chat(response={"choices": [{"index": 0, "message": message}]}, **more)
    return chat, [{"role": "user", "content": content}]


async def ids(search: ChatSearch, query: str, **more) -> list[str]:
    return [chat.id for chat in (await search.find(query, **more)).items]


@pytest.mark.parametrize(
    "query",
    ["keyset", "KEY", "what paging", "seek", "ecole", "École", "智能", "人工智", "日", "recipes"],
)
async def test_chat_is_found_by_words_of_title_question_and_answer(chats, search, query):
    text = [{"type": "text", "text": "What is keyset paging, École, 人工智能 and 日本?"}]
    this, messages = said(text, "The seek method.", metadata={"title": "Recipes"})
    await chats.add(this, messages)
    await chats.add(*said("Something else, 工人能智.", "No."))

    found = (await search.find(query)).items

    assert [(one.id, one.title) for one in found] == [(this.id, "Recipes")]


async def test_chat_with_a_nul_character_in_its_answer_is_stored_and_found(chats, search):
    this, messages = said("What is keyset paging?", "The\0seek method.")
    await chats.add(this, messages)

    assert await ids(search, "seek") == [this.id]
    assert (await chats.get(this.id)).response == this.response


@pytest.mark.parametrize("query", ["eyset", "keyset missing", "…", "能工", "owner", "' OR 1"])
async def test_chat_is_not_found_by_other_words(chats, search, query):
    await chats.add(*said("What is keyset paging? 人工智能"))

    assert await ids(search, query) == []


async def test_every_indexed_word_of_a_chat_with_too_many_is_found(chats, database):
    search = ChatSearch(database, limit_characters=10_000_000)
    text = " ".join(f"{number:x}".rjust(64, "w") for number in range(20_000))
    await chats.add(*said(text))
    indexed = words_of([text], len(text))

    found = [await ids(search, word) for word in indexed[-2::-3000]]

    assert len(indexed) == 1_000_000 // 64
    assert all(len(one) == 1 for one in found)


async def test_found_chats_come_latest_first_and_in_pages(chats, search):
    stored = [said(f"Keyset {number}", metadata={"client": "web"}) for number in range(5)]
    for chat, messages in stored:
        await chats.add(chat, messages)
    await chats.add(*said("Keyset of another client"))
    latest = [chat.id for chat, _ in stored[::-1]]

    page = await search.find("keyset", metadata={"client": "web"}, limit=3)
    rest = await search.find("keyset", metadata={"client": "web"}, after=page.last_id)

    assert [one.id for one in page.items] == latest[:3]
    assert [one.id for one in rest.items] == latest[3:]
    assert (page.has_more, rest.has_more) == (True, False)


async def test_equals_signs_in_keys_and_values_of_metadata_are_distinguished(chats, search):
    pairs = [("a", "b=c"), ("a=b", "c"), ("", "3 a=b=c")]
    stored = [said("Keyset", metadata={key: value}) for key, value in pairs]
    for chat, messages in stored:
        await chats.add(chat, messages)

    found = [await ids(search, "keyset", metadata={key: value}) for key, value in pairs]

    assert found == [[chat.id] for chat, _ in stored]


async def test_search_forgets_a_deleted_chat_and_follows_a_renamed_one(chats, search, database):
    gone, messages = said("A keyset")
    renamed, others = said("A cursor", metadata={"title": "Pages"})
    await chats.add(gone, messages)
    await chats.add(renamed, others)
    await search.sweep()

    await chats.delete(gone.id)
    await chats.update_metadata(renamed.id, {"title": "Leaves"})

    assert await ids(search, "keyset") == await ids(search, "pages") == []
    assert await ids(search, "leaves") == [renamed.id]
    left = await database.read(
        lambda connection: connection.exec_driver_sql("SELECT count(*) FROM chat_words").scalar()
    )
    assert left == 1


async def test_words_of_many_chats_are_indexed_and_replaced_together(chats, search):
    many = [said(f"number{n}" if n % 2 else "", "") for n in range(150)]
    await chats.add_unless_taken([NewChat(chat=chat, messages=messages) for chat, messages in many])
    first, empty = many[1][0], many[4][0]

    assert await ids(search, "number", limit=100) == [one.id for one, _ in many[:0:-2]]
    for renamed in (first, empty):
        await chats.update_metadata(renamed.id, {"title": "Renamed"})
    assert await ids(search, "renamed") == [empty.id, first.id]
    assert await ids(search, "number1 renamed") == [first.id]


def test_words_of_a_plain_text_are_those_of_any_other():
    plain = "Snake_case, CamelCase; it's 3.14 x" + "Y" * 100

    assert words_of([plain], 1000) == words_of([plain + " 東"], 1000)[:-1]


async def test_search_finds_only_chats_of_its_owner(chats: ChatStore, search):
    mine, messages = said("A keyset")
    others, _ = said("A keyset")
    with as_owner(Owner(id="proj_a")):
        await chats.add(mine, messages)
    await chats.add(others, messages)

    with as_owner(Owner(id="proj_a")):
        assert await ids(search, "keyset") == [mine.id]
    with as_owner(Owner.default_project()):
        assert await ids(search, "keyset") == [others.id]
    with as_owner(Owner(id="proj_b")):
        assert await ids(search, "keyset") == []


async def test_search_reads_a_limited_part_of_a_long_chat(chats, search):
    long, messages = said("early " + "filler " * 300 + "late")
    await chats.add(long, messages)

    assert await ids(search, "early") == [long.id]
    assert await ids(search, "late") == []


def test_excerpt_marks_the_words_around_the_first_found_one():
    text = "Once upon a time " * 10 + "there was a Straße in 東京都 and more" + " text" * 50

    parts = excerpt(["Nothing here.", text], "strasse 京都")

    assert "".join(one.text for one in parts).startswith("…")
    assert [one.text for one in parts if one.is_match] == ["Straße", "京都"]
    assert len("".join(one.text for one in parts)) <= 162
    assert excerpt(["Nothing here."], "x")[0].text == "Nothing here."
    assert excerpt([], "x") == []


@pytest.mark.parametrize("second_at", range(100, 225, 5))
def test_excerpt_has_no_more_characters_than_its_limit(second_at):
    text = "a" * 20 + " " + "b" * 38 + " word ".ljust(second_at - 59, "c") + " word " + "d" * 99
    parts = excerpt([text], "word")

    assert text[60:64] == "word"
    whole = "".join(one.text for one in parts)
    assert len(whole.strip("…")) == 160
    assert whole.strip("…") in text
    assert all(one.text in "word" for one in parts if one.is_match)


@pytest.mark.parametrize("text", ["㈠ ½ a\ud800b ① ﬁn", "हिन्दी", "x" * 5000, "\x00'\"*"])
def test_words_of_any_text_can_be_sought(text):
    assert all(word.isalnum() or not word.isascii() for word in words_of([text], 10_000))
    assert set(sought_words(text)) <= set(words_of([text], 10_000))
