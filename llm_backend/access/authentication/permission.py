"""What a project may ask: which models, with which tools, for how much money; and how its requests
are let through."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from llm_backend.access.authentication.hosted_tool_types import check_tools
from llm_backend.access.authentication.named_models import models_in
from llm_backend.access.authentication.policy import Project
from llm_backend.access.authentication.principal import Caller
from llm_backend.access.limits.request_policy import RequestPolicies, RequestPolicy
from llm_backend.access.usage.metered_operations import MeteredOperation
from llm_backend.access.usage.spending import Spending
from llm_backend.backends.upstream.body_rewriting import with_value
from llm_backend.contract.body import check_keys
from llm_backend.contract.forms.form_observer import observe_form
from llm_backend.contract.request import ApiRequest
from llm_backend.errors import Forbidden, InvalidRequest

__all__ = ["Permission"]


_MODEL_FIELDS = frozenset({"model", "session"})  # of forms


class Permission:
    """Decides by the caller's project, as it is administered now."""

    def __init__(self, plans: RequestPolicies, spending: Spending) -> None:
        self._plans = plans
        self._spending = spending

    def check(self, caller: Caller, model: str, *, names_model: bool = True) -> RequestPolicy:
        """What holds for this caller with this model. Raises `Forbidden` where the project may not
        use it, or may use only some and none is named, and `QuotaExceeded`."""
        project = project_of(caller)
        plan = self._plans.plan(caller, model)
        if project.models is not None:
            if not model and names_model:
                raise Forbidden(
                    f"Project `{project.id}` does not have access to all models, and the request "
                    "does not say which one it asks: name it in `model`, in a form before any "
                    "file.",
                    param="model",
                    code="model_not_found",
                )
            if model and not plan.is_allowed:
                raise _not_allowed(project, model)
        self._spending.check(project)
        return plan

    def hold(self, request: ApiRequest, caller: Caller, metered: MeteredOperation) -> ApiRequest:
        """The request, as the caller's project lets it be. Raises `Forbidden`."""
        project, body = project_of(caller), request.body
        if metered.is_unknown:
            self._check_unbound(project, request)
        if metered.leads_past and self._spending.is_limited(project):
            raise Forbidden(
                f"Project `{project.id}` has a spend limit, and what this opens is used at the "
                "upstream without being seen here: open a WebSocket to /v1/realtime instead."
            )
        if project.models is not None:
            query = request.http.query_params.multi_items()
            self.check_models(project, [model for name, model in query if name.lower() == "model"])
        if not isinstance(body, dict):
            return self._hold_form(request, project)
        self.check_body(project, body, request.raw_body)
        if not (project.keeps_nothing and metered.is_stored):
            return request
        return replace(
            request,
            body={**body, "store": False},
            raw_body=with_value(request.raw_body, "store", False) if request.raw_body else b"",
        )

    def _check_unbound(self, project: Project, request: ApiRequest) -> None:
        """Raises `Forbidden` where the project is bound by what cannot be seen of this request."""
        is_bound = project.models is not None or project.forbidden_tools or project.keeps_nothing
        if is_bound or self._spending.is_limited(project):
            method, path = request.http.method, request.path["path"][:256]
            raise Forbidden(
                f"Project `{project.id}` has limits on models, tools, storage or spending, and "
                f"what {method} {path} does is not known here: it is relayed only for a project "
                "without such limits."
            )

    def check_body(self, project: Project, body: dict[str, Any], raw_body: bytes | str) -> None:
        """Raises `Forbidden` for a model, or a tool, that a body names beside the model that it
        asks: of a session, a grader, an image. Raises `InvalidRequest` where it names two in one
        place, of which the upstream might read the other."""
        if raw_body and (project.models is not None or project.forbidden_tools):
            check_keys(raw_body)
        if project.models is not None:
            self.check_models(project, models_in(body))
        if project.forbidden_tools:
            check_tools(body, project.forbidden_tools)

    def check_models(self, project: Project, models: Iterable[str]) -> None:
        """Raises `Forbidden` for one that the project may not use."""
        for model in models:
            if not self._plans.allows(project, model):
                raise _not_allowed(project, model)

    def _hold_form(self, request: ApiRequest, project: Project) -> ApiRequest:
        """What its head names was allowed; what stands behind it may say something else."""
        if project.models is None or request.form_head is None:
            return request
        check = partial(self._check_field, project)
        return replace(request, http=observe_form(request.http, _MODEL_FIELDS, check))

    def _check_field(self, project: Project, name: str, value: bytes) -> None:
        if name == "model":
            self.check_models(project, [value.decode(errors="replace")])
            return
        try:
            session = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest("The field is not JSON.", param=name) from error
        self.check_models(project, models_in(session))


def project_of(caller: Caller) -> Project:
    """The project of a caller who asks models."""
    assert caller.project is not None, "who calls a model has a project"
    return caller.project


def _not_allowed(project: Project, model: str) -> Forbidden:
    return Forbidden(
        f"Project `{project.id}` does not have access to model `{model[:256]}`.",
        param="model",
        code="model_not_found",
    )
