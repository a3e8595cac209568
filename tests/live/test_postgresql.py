"""The served process on PostgreSQL: stored chats outlive it, and two processes share them."""

import httpx

from tests.postgresql import PostgresqlServer
from tests.serving import serve

CHAT = {"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2}


def test_two_processes_share_chats_that_outlive_both(postgresql_server: PostgresqlServer, tmp_path):
    url = postgresql_server.new_database()
    environment = {"DATABASE_URL": url}
    with (
        serve(tmp_path / "one", environment=environment) as one,
        serve(tmp_path / "two", "--model", "none", environment=environment) as two,
    ):
        made = httpx.post(f"{one.base_url}/chat/completions", json=CHAT, timeout=60).json()
        seen = httpx.get(f"{two.base_url}/chat/completions/{made['id']}")
        changed = httpx.post(
            f"{two.base_url}/chat/completions/{made['id']}", json={"metadata": {"by": "two"}}
        )

    with serve(tmp_path / "three", "--model", "none", environment=environment) as three:
        listed = httpx.get(
            f"{three.base_url}/chat/completions", params={"metadata[by]": "two"}
        ).json()

    assert seen.json()["choices"] == made["choices"]
    assert changed.status_code == 200
    assert [chat["id"] for chat in listed["data"]] == [made["id"]]


NO_DATABASE = {
    "DATABASE_URL": "postgresql://unknown@127.0.0.1:9/none",
    "LLM_BACKEND_API_KEYS": "sk-of-the-settings",  # the others are in the database
}
WITH_KEY = {"authorization": "Bearer sk-of-the-settings"}


def test_a_database_that_is_down_is_load_and_not_a_bug(tmp_path):
    with serve(tmp_path, environment=NO_DATABASE, ready=False) as served:
        health = httpx.get(f"{served.address}/healthz")
        ready = httpx.get(f"{served.address}/readyz", timeout=30)
        with httpx.Client(base_url=served.base_url, headers=WITH_KEY, timeout=30) as client:
            stored = client.get("/chat/completions")
            models = client.get("/models")
        unknown = httpx.get(f"{served.base_url}/models", headers={"authorization": "Bearer sk-?"})
        nobody = httpx.get(f"{served.base_url}/models")

    assert health.status_code == models.status_code == 200
    assert nobody.status_code == 401
    for response in (ready, stored, unknown):
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert response.json()["error"]["code"] == "overloaded"


def test_a_chat_is_answered_without_its_database_unless_store_is_true(tmp_path):
    with (
        serve(tmp_path, environment=NO_DATABASE, ready=False) as served,
        httpx.Client(base_url=served.base_url, headers=WITH_KEY, timeout=60) as client,
    ):
        answered = client.post("/chat/completions", json=CHAT)
        asked = client.post("/chat/completions", json={**CHAT, "store": True})
    log = served.log.read_text()

    assert answered.status_code == 200
    assert asked.status_code == 503
    assert "chat_not_stored" in log


def test_requests_are_refused_until_keys_are_loaded(tmp_path):
    environment = {"DATABASE_URL": NO_DATABASE["DATABASE_URL"]}
    with serve(tmp_path, environment=environment, ready=False) as served:
        response = httpx.post(f"{served.base_url}/chat/completions", json=CHAT, timeout=60)

    assert response.status_code == 503
    assert response.headers["retry-after"]


def test_a_database_that_comes_up_later_is_taken_up(postgresql_server: PostgresqlServer, tmp_path):
    url = postgresql_server.new_database()
    postgresql_server.drop_database(url)
    with serve(
        tmp_path, "--model", "none", environment={"DATABASE_URL": url}, ready=False
    ) as served:
        before = httpx.get(f"{served.address}/readyz").status_code
        postgresql_server.sql("postgres", f"CREATE DATABASE {url.rpartition('/')[2]}")
        served.wait_ready()

    assert before == 503
