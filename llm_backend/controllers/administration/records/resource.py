"""One kind of administered record: listed, found, added, changed and deleted."""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.administration.records.changes import apply_change
from llm_backend.controllers.administration.records.listing import paged_response
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import NotFound
from llm_backend.json_types import JsonMapping
from llm_backend.store.administration import AuditedChange, Record


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A kind of records of the organization or of its projects: its name in messages, and the
    prefix of its ids. Methods that change records take an audit log entry."""

    kind: str
    name: str
    id_prefix: str = ""

    async def list(
        self,
        services: Services,
        request: ApiRequest,
        render: Callable[[Record], JsonMapping],
        *,
        project_id: str | None = None,
        matches: Callable[[Record], bool] | None = None,
    ) -> Response:
        """Answers the list operation with a page of the records that match."""
        return await paged_response(
            self.name,
            request.query,
            lambda page: services.access.administration.find(
                self.kind, page, project_id=project_id
            ),
            render,
            matches=matches,
        )

    async def get(self, services: Services, id: str, *, project_id: str | None = None) -> Record:
        """Returns a record of this owner. Raises `NotFound`."""
        with translate_store_errors(self.name):
            record = await services.access.administration.get(self.kind, id)
        if record.project_id != project_id:
            raise NotFound(f"No {self.name} has the id `{id}`.")
        return record

    def new(self, body: Mapping[str, Any], *, project_id: str | None = None) -> Record:
        """Makes a record with a new id."""
        return Record(
            id=f"{self.id_prefix}{uuid.uuid4().hex[:24]}",
            kind=self.kind,
            created_at=int(time.time()),
            project_id=project_id,
            body=body,
        )

    async def add(self, services: Services, entry: AuditedChange, record: Record) -> None:
        """Stores a new record. Raises `Conflict` if there is one with its id."""
        async with apply_change(services, self.name):
            await services.access.administration.add(entry, record)

    async def alter(
        self, services: Services, entry: AuditedChange, id: str, **changes: Any
    ) -> Record:
        """Replaces values of the record's body; returns the new record. Raises `NotFound`."""
        async with apply_change(services, self.name):
            return await services.access.administration.alter(
                entry,
                self.kind,
                id,
                lambda record: replace(record, body={**record.body, **changes}),
            )

    async def remove(self, services: Services, entry: AuditedChange, id: str, **more: str) -> None:
        """Deletes the record, and `more`, as `Administration.remove` does. Raises `NotFound`."""
        async with apply_change(services, self.name):
            await services.access.administration.remove(entry, self.kind, id, **more)
