"""Policy: permissions and limits of all projects, parsed from administered records (pure)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llm_backend.access.authentication import resource_kinds
from llm_backend.json_types import JsonMapping
from llm_backend.store.administration import Record

DEFAULT_PROJECT = "proj_default"
"""The project of keys from the settings, and of requests to an open server."""

_ZERO_RETENTION = frozenset({"zero_data_retention", "enhanced_zero_data_retention"})

Limits = Mapping[str, int]
"""Rate limits of a model, by the field names of OpenAI's API: `max_requests_per_1_minute` etc."""


@dataclass(frozen=True, kw_only=True)
class ModelPermissions:
    """An allow list or a deny list of models."""

    is_allow_list: bool
    models: frozenset[str]

    def allow(self, name: str, targets: Sequence[str] = ()) -> bool:
        """True if a name may be used. `targets` are the models that it stands for, if it is an
        alias or a route. An allow list allows a name that it contains, and a name of which it
        contains all targets. A deny list allows a name unless it contains the name or one of its
        targets."""
        if self.is_allow_list:
            return name in self.models or (bool(targets) and self.models.issuperset(targets))
        return self.models.isdisjoint((name, *targets))


@dataclass(frozen=True, kw_only=True, eq=False)
class Project:
    """A project with the limits and permissions of its requests."""

    id: str
    name: str
    is_archived: bool = False
    rate_limits: Mapping[str, Limits] = field(default_factory=dict)  # by model
    models: ModelPermissions | None = None
    forbidden_tools: frozenset[str] = frozenset()
    spend_limit_cents: int | None = None  # a month
    has_zero_retention: bool = False


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All projects, and the limits of the organization."""

    projects: Mapping[str, Project]
    emails: Mapping[str, str]  # of users, by their ids
    spend_limit_cents: int | None = None  # the organization's, a month
    spend_alerts: tuple[Record, ...] = ()


def policy_of(records: Iterable[Record]) -> Policy:
    """Parses records into a policy."""
    by_kind: dict[str, list[Record]] = {}
    for record in records:
        by_kind.setdefault(record.kind, []).append(record)
    bodies = {
        kind: {record.project_id: record.body for record in by_kind.get(kind, ())}
        for kind in (
            resource_kinds.MODEL_PERMISSIONS,
            resource_kinds.HOSTED_TOOLS,
            resource_kinds.SPEND_LIMIT,
            resource_kinds.DATA_RETENTION,
        )
    }
    rates: dict[str | None, dict[str, Limits]] = {}
    for record in by_kind.get(resource_kinds.RATE_LIMIT, ()):
        rates.setdefault(record.project_id, {})[record.body["model"]] = record.body["limits"]
    return Policy(
        projects={
            record.id: _project(record, bodies, rates.get(record.id, {}))
            for record in by_kind.get(resource_kinds.PROJECT, ())
        },
        emails={record.id: record.body["email"] for record in by_kind.get(resource_kinds.USER, ())},
        spend_limit_cents=_spend_limit(bodies, None),
        spend_alerts=tuple(by_kind.get(resource_kinds.SPEND_ALERT, ())),
    )


Bodies = Mapping[str, Mapping[str | None, JsonMapping]]  # by kind and project


def _project(record: Record, bodies: Bodies, rates: Mapping[str, Limits]) -> Project:
    permissions = bodies[resource_kinds.MODEL_PERMISSIONS].get(record.id)
    tools = bodies[resource_kinds.HOSTED_TOOLS].get(record.id, {})
    return Project(
        id=record.id,
        name=record.body["name"],
        is_archived=record.body.get("archived_at") is not None,
        rate_limits=rates,
        models=None
        if permissions is None
        else ModelPermissions(
            is_allow_list=permissions["mode"] == "allow_list",
            models=frozenset(permissions["model_ids"]),
        ),
        forbidden_tools=frozenset(name for name, one in tools.items() if not one["enabled"]),
        spend_limit_cents=_spend_limit(bodies, record.id),
        has_zero_retention=_retention(bodies, record.id) in _ZERO_RETENTION,
    )


def _spend_limit(bodies: Bodies, project_id: str | None) -> int | None:
    limit = bodies[resource_kinds.SPEND_LIMIT].get(project_id)
    return None if limit is None else int(limit["threshold_amount"])


def _retention(bodies: Bodies, project_id: str) -> str | None:
    """Returns a project's data retention, by default the organization's."""
    retentions = bodies[resource_kinds.DATA_RETENTION]
    own: str | None = retentions.get(project_id, {}).get("type", "organization_default")
    return retentions.get(None, {}).get("type") if own == "organization_default" else own
