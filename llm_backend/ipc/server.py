"""Message server: accepts the connections of other processes, and serves each by a session."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from llm_backend.background_tasks import BackgroundTasks
from llm_backend.ipc.connection import Channel, MessageConnection

Received = TypeVar("Received")
Sent = TypeVar("Sent")


class ClientSession(ABC, Generic[Received, Sent]):
    """The server's side of one connection. A client's requests run as tasks until they are done,
    the client cancels them by number, or the session ends."""

    def __init__(self, connection: MessageConnection[Received, Sent]) -> None:
        self.connection = connection
        self._requests: dict[int, asyncio.Task[None]] = {}

    @abstractmethod
    def handle(self, message: Received) -> None:
        """Handles one message of the client."""

    def start_request(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        """Starts the task of a request."""
        task = self._requests[number] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._requests.pop(number, None))

    def cancel_request(self, number: int) -> None:
        """Cancels the task of a request, unless it is done."""
        if number in self._requests:
            self._requests[number].cancel()

    def close(self) -> None:
        """Ends the session: cancels the client's requests and disconnects."""
        for task in self._requests.values():
            task.cancel()
        self.connection.close()


Session = TypeVar("Session", bound=ClientSession[Any, Any])


class MessageServer(Generic[Received, Sent, Session]):
    """Listens at a Unix socket; `open_session` creates the session of a new connection."""

    def __init__(
        self,
        path: Path,
        channel: Channel[Received],
        open_session: Callable[[MessageConnection[Received, Sent]], Session],
    ) -> None:
        self.sessions: set[Session] = set()
        self._path = path
        self._channel = channel
        self._open_session = open_session
        self._tasks = BackgroundTasks()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(
            self._accept, self._path, limit=self._channel.limit_bytes
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._tasks.cancel()

    def send_to_all(self, message: Sent) -> None:
        """Sends a message to all clients."""
        for session in self.sessions:
            session.connection.send(message)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.start(self._serve(MessageConnection(self._channel, reader, writer)))

    async def _serve(self, connection: MessageConnection[Received, Sent]) -> None:
        session = self._open_session(connection)
        self.sessions.add(session)
        try:
            while (message := await connection.receive()) is not None:
                session.handle(message)
        finally:
            self.sessions.discard(session)
            session.close()
