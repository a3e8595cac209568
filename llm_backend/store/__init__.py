"""What is remembered: one SQL model, on SQLite or PostgreSQL, spoken to in values of our own."""

from llm_backend.store.chats import Chats
from llm_backend.store.database import Database
from llm_backend.store.errors import (
    CannotOpen,
    Duplicate,
    Missing,
    OldSchema,
    StoreDeadlock,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    UnknownCursor,
    UnknownSchema,
    Unstorable,
)
from llm_backend.store.pages import Order, Page
from llm_backend.store.schema import check_schema, migrate
from llm_backend.store.stored_chat import ChatStatus, StoredChat, StoredMessage

__all__ = [
    "CannotOpen",
    "ChatStatus",
    "Chats",
    "Database",
    "Duplicate",
    "Missing",
    "OldSchema",
    "Order",
    "Page",
    "StoreDeadlock",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnavailable",
    "StoredChat",
    "StoredMessage",
    "UnknownCursor",
    "UnknownSchema",
    "Unstorable",
    "check_schema",
    "migrate",
]
