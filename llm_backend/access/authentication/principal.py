"""Who asks."""

from dataclasses import dataclass
from typing import Protocol

from llm_backend.access.authentication.policy import DEFAULT_PROJECT, Project
from llm_backend.store import Owner

__all__ = ["DEFAULT_PROJECT", "BillingOwner", "Caller", "Principal"]


class BillingOwner(Protocol):
    """For whom something counts."""

    @property
    def project_id(self) -> str: ...
    @property
    def key_id(self) -> str | None: ...
    @property
    def user_id(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who asks, and within which project; the same value for every request with one key.

    `key_id` is None where the server is open. An admin key has no project: it administers, and
    calls no model. A key of the settings, and whoever asks an open server, may do both.
    """

    key_id: str | None = None
    project: Project | None = None
    user_id: str | None = None
    service_account_id: str | None = None
    email: str | None = None
    may_administer: bool = False

    @property
    def owner(self) -> Owner | None:
        """In whose name this caller stores and finds things: the project's. The default one's are
        those that were there before there were projects. None: an admin key, which stores none.
        """
        if self.project is None:
            return None
        return Owner(id=None if self.project.id == DEFAULT_PROJECT else self.project.id)

    @property
    def project_id(self) -> str:
        """The project that what is done counts for."""
        return self.project.id if self.project else DEFAULT_PROJECT


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """Whoever asked for work that goes on without him: it counts for him, even when his key has
    been revoked meanwhile. Its fields are JSON."""

    project_id: str
    key_id: str | None
    user_id: str | None

    @classmethod
    def of(cls, caller: Caller) -> "Principal":
        """The same one, as far as he is kept."""
        return cls(project_id=caller.project_id, key_id=caller.key_id, user_id=caller.user_id)
