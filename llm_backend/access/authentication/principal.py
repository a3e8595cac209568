"""Callers and principals: the key, project and user of a request."""

from dataclasses import dataclass
from typing import Protocol

from llm_backend.access.authentication.policy import DEFAULT_PROJECT, Project
from llm_backend.store import Owner


class BillingOwner(Protocol):
    """The key, project and user that usage is billed to."""

    @property
    def project_id(self) -> str: ...
    @property
    def key_id(self) -> str | None: ...
    @property
    def user_id(self) -> str | None: ...


def fairness_key(caller: BillingOwner | None) -> str:
    """Returns the key of a caller in fair queues: requests of one API key wait in one line."""
    return "" if caller is None else caller.key_id or ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The caller of a request, with its project; all requests with one key share one instance.

    `key_id` is None on an open server. An admin key has no project: it administers, and calls no
    model. Keys of the settings, and callers of an open server, may do both.
    """

    key_id: str | None = None
    project: Project | None = None
    user_id: str | None = None
    service_account_id: str | None = None
    email: str | None = None
    may_administer: bool = False

    @property
    def owner(self) -> Owner | None:
        """The owner of rows that this caller stores and finds: its project. None for an admin key,
        which stores no rows.
        """
        if self.project is None:
            return None
        if self.project.id == DEFAULT_PROJECT:
            return Owner.default_project()
        return Owner(id=self.project.id)

    @property
    def project_id(self) -> str:
        """The project that usage is billed to."""
        return self.project.id if self.project else DEFAULT_PROJECT

    @property
    def has_zero_retention(self) -> bool:
        """True if nothing of this caller's chats and responses may be stored."""
        return self.project is not None and self.project.has_zero_retention


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """The billing owner of background work, which goes on after its request. It is billed even
    if its key has been revoked meanwhile. All fields are JSON values."""

    project_id: str
    key_id: str | None
    user_id: str | None

    @classmethod
    def of(cls, caller: Caller) -> "Principal":
        """Returns the stored part of a caller."""
        return cls(project_id=caller.project_id, key_id=caller.key_id, user_id=caller.user_id)
