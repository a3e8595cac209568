"""A program that stores chats forever and prints the id of each acknowledged one; to be killed."""

import asyncio
import sys

from llm_backend.store import ChatStore, Database, StoredChat, migrate

WRITERS = 8


async def main(url: str) -> None:
    async with Database.open(url) as database:
        await migrate(database)
        await asyncio.gather(*(store(ChatStore(database), writer) for writer in range(WRITERS)))


async def store(chats: ChatStore, writer: int) -> None:
    number = 0
    while True:
        number += 1
        id = f"chatcmpl-{writer}-{number}"
        body = {"text": "x" * 1000}
        chat = StoredChat(id=id, created_at=number, model="m", request={}, response=body)
        await chats.add(chat, [{"role": "user", "content": id}])
        sys.stdout.write(f"{id}\n")
        sys.stdout.flush()


asyncio.run(main(sys.argv[1]))
