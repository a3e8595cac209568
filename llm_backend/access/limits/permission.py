"""Permission checks of a project: models, hosted tools, spending, and storage of its requests."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from llm_backend.access.authentication.named_models import find_named_models
from llm_backend.access.authentication.policy import Project
from llm_backend.access.authentication.principal import Caller
from llm_backend.access.limits.request_policy import RequestPolicies, RequestPolicy
from llm_backend.access.usage.metered_operations import MeteredOperation
from llm_backend.access.usage.spending import Spending
from llm_backend.backends.upstream.body_rewriting import with_value
from llm_backend.contract.body import check_duplicate_keys
from llm_backend.contract.forms.form_observer import observe_form
from llm_backend.contract.request import ApiRequest
from llm_backend.errors import Forbidden, InvalidRequest
from llm_backend.json_types import JsonMapping, JsonObject

_MODEL_FIELDS = frozenset({"model", "session"})  # fields of forms
_CHECKED_FIELDS = frozenset(
    {"tools", "type", "web_search_options", "mcp_servers", "session", "response", "store"}
)
# The prefix of a hosted tool's type -> the permission that the tool needs.
_PERMISSIONS = {
    "file_search": "file_search",
    "web_search": "web_search",  # also web_search_preview, and types with a date
    "image_generation": "image_generation",
    "mcp": "mcp",
    "code_interpreter": "code_interpreter",
    "web_fetch": "web_search",  # this and the next are Anthropic's
    "code_execution": "code_interpreter",
}


class PermissionChecks:
    """Checks requests against the current policy of the caller's project."""

    def __init__(self, policies: RequestPolicies, spending: Spending) -> None:
        self._policies = policies
        self._spending = spending

    def check(self, caller: Caller, model: str, *, requires_model: bool = True) -> RequestPolicy:
        """Returns the policy of this caller with this model. Raises `Forbidden` if the project may
        not use the model, or if it may use only some models and the request names none. Raises
        `QuotaExceeded` if a spend limit is reached."""
        project = project_of(caller)
        policy = self._policies.policy_of(caller, model)
        if project.models is not None:
            if not model and requires_model:
                raise Forbidden(
                    f"Project `{project.id}` does not have access to all models, and the request "
                    "names no model: set `model`; in a form, put it before the files.",
                    param="model",
                    code="model_not_found",
                )
            if model and not policy.is_allowed:
                raise _not_allowed(project, model)
        self._spending.check(project)
        return policy

    def enforce(self, request: ApiRequest, caller: Caller, metered: MeteredOperation) -> ApiRequest:
        """Returns the request with the project's policy enforced. Raises `Forbidden`."""
        project, body = project_of(caller), request.body
        if metered.is_unknown:
            self._refuse_if_restricted(project, request)
        if metered.opens_unmetered_use:
            self.check_unmetered_use(caller)
        if project.models is not None:
            query = request.http.query_params.multi_items()
            self.check_models(project, [model for name, model in query if name.lower() == "model"])
        if not isinstance(body, dict):
            return self._enforce_form(request, project)
        self.check_body(project, body, request.raw_body)
        if not (project.has_zero_retention and metered.is_stored):
            return request
        return replace(
            request,
            body={**body, "store": False},
            raw_body=with_value(request.raw_body, "store", False) if request.raw_body else b"",
        )

    def check_unmetered_use(self, caller: Caller) -> None:
        """Raises `Forbidden` if a spend limit applies to the caller's project, because the
        operation opens a session at the upstream, whose usage this server cannot count."""
        project = project_of(caller)
        if self._spending.is_limited(project):
            raise Forbidden(
                f"Project `{project.id}` has a spend limit, and the session that this operation "
                "creates is used at the upstream, where its usage cannot be counted: open a "
                "WebSocket to /v1/realtime instead."
            )

    def _refuse_if_restricted(self, project: Project, request: ApiRequest) -> None:
        """Raises `Forbidden` if the project has limits that an unknown operation could evade."""
        is_bound = (
            project.models is not None or project.forbidden_tools or project.has_zero_retention
        )
        if is_bound or self._spending.is_limited(project):
            method, path = request.http.method, request.path["path"][:256]
            raise Forbidden(
                f"Project `{project.id}` has limits on models, tools, storage or spending, and "
                f"what {method} {path} does is not known here: it is relayed only for a project "
                "without such limits."
            )

    def check_body(self, project: Project, body: JsonObject, raw_body: bytes | str) -> None:
        """Raises `Forbidden` for any model or tool in the body that the project may not use, also
        for one within a session, a grader or an image tool. If models or tools are restricted,
        raises `InvalidRequest` for a duplicate JSON key, because the upstream might read the other
        value; if tools or storage are, for a name such as `Tools` or `STORE`, because some
        upstreams ignore case."""
        if raw_body and (project.models is not None or project.forbidden_tools):
            check_duplicate_keys(raw_body)
        if project.models is not None:
            self.check_models(project, find_named_models(body))
        if project.forbidden_tools or project.has_zero_retention:
            check_case(body)
        if project.forbidden_tools:
            check_tools(body, project.forbidden_tools)

    def check_models(self, project: Project, models: Iterable[str]) -> None:
        """Raises `Forbidden` for a model that the project may not use."""
        for model in models:
            if not self._policies.allows(project, model):
                raise _not_allowed(project, model)

    def _enforce_form(self, request: ApiRequest, project: Project) -> ApiRequest:
        """Checks the fields of a form while it is read: only its head has been checked so far."""
        is_bound = project.models is not None or project.forbidden_tools
        if not is_bound or request.form_head is None:
            return request
        check = partial(self._check_field, project)
        return replace(request, http=observe_form(request.http, _MODEL_FIELDS, check))

    def _check_field(self, project: Project, name: str, value: bytes) -> None:
        if name == "model":
            if project.models is not None:
                self.check_models(project, [value.decode(errors="replace")])
            return
        try:
            session = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest("The field is not JSON.", param=name) from error
        self.check_body(project, {name: session}, value)


def project_of(caller: Caller) -> Project:
    """Returns the project of a caller that may call models."""
    assert caller.project is not None, "a caller of a model has a project"
    return caller.project


def _not_allowed(project: Project, model: str) -> Forbidden:
    return Forbidden(
        f"Project `{project.id}` does not have access to model `{model[:256]}`.",
        param="model",
        code="model_not_found",
    )


def check_tools(body: JsonMapping, forbidden: frozenset[str]) -> None:
    """Raises `Forbidden` for a tool that the caller's project may not use. Looks at the tools of
    the request, and of the session or the response that the request creates."""
    if "web_search" in forbidden and body.get("web_search_options") is not None:
        raise _tool_not_allowed("web_search", "web_search_options")
    if "mcp" in forbidden and body.get("mcp_servers"):  # Anthropic's
        raise _tool_not_allowed("mcp", "mcp_servers")
    for prefix, _, tools in _objects_with_tools(body):
        for index, tool in enumerate(tools):
            type = tool.get("type") if isinstance(tool, dict) else None
            permission = _tool_permission(type) if isinstance(type, str) else None
            if permission in forbidden:
                raise _tool_not_allowed(permission, f"{prefix}tools[{index}]")


def check_case(body: JsonMapping) -> None:
    """Raises `InvalidRequest` for a field about tools or storage whose name is not lower case."""
    for _, holder, tools in _objects_with_tools(body):
        for one in (holder, *tools):
            for name in one if isinstance(one, dict) else ():
                if name not in _CHECKED_FIELDS and name.casefold() in _CHECKED_FIELDS:
                    raise InvalidRequest(
                        f"`{name}` must be written as `{name.casefold()}`.",
                        param=name,
                        code="unknown_parameter",
                    )


def _objects_with_tools(body: JsonMapping) -> Iterator[tuple[str, JsonMapping, Sequence[Any]]]:
    """Yields the request, its session and its response: path prefix, object, and tools."""
    session, response = body.get("session"), body.get("response")
    for prefix, holder in (("", body), ("session.", session), ("response.", response)):
        if isinstance(holder, dict):
            tools = holder.get("tools")
            yield prefix, holder, tools if isinstance(tools, list) else ()


def _tool_not_allowed(permission: str | None, where: str) -> Forbidden:
    return Forbidden(f"The project may not use the hosted tool `{permission}`.", param=where)


def _tool_permission(type: str) -> str | None:
    for beginning, permission in _PERMISSIONS.items():
        if type.startswith(beginning):
            return permission
    return None
