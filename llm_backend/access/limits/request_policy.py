"""Request policies: the limits and permissions of a caller with a model, cached for each pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_backend.access.authentication.keyring import Keyring
from llm_backend.access.authentication.policy import Policy, Project
from llm_backend.access.authentication.principal import Caller
from llm_backend.access.limits.concurrency import ConcurrencyLimit, SharedConcurrencyLimits
from llm_backend.access.limits.rate_limits import RateLimit, RateLimits
from llm_backend.access.limits.rate_window import RateLimitWindow
from llm_backend.durations import DAY_S

CACHED_LIMIT = 20_000  # policies; beyond it the cache is cleared
MODELS_LIMIT = 1_000  # models of a project with windows of their own: clients invent any name

TargetsOf = Callable[[str], Sequence[str]]
"""Returns the models that a name of this server stands for; a reload of the config file may change
them."""


@dataclass(frozen=True, kw_only=True)
class DefaultLimits:
    """Limits of the settings; None: no limit."""

    requests_per_minute: int | None = None  # of a project to a model
    tokens_per_minute: int | None = None
    key_requests_per_minute: int | None = None
    key_tokens_per_minute: int | None = None
    key_concurrent_requests: int | None = None
    project_concurrent_requests: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestPolicy:
    """The limits of one caller with one model; usage is counted under `model`. For a route, the
    limits of the chosen target apply as well."""

    model: str
    is_route: bool
    rate_windows: Sequence[RateLimitWindow]
    concurrency_limits: Sequence[ConcurrencyLimit]
    is_allowed: bool
    is_restricted: bool  # True if the project restricts models or tools, or stores nothing


class RequestPolicies:
    """Caches request policies by key, model and the model's targets until a policy changes."""

    def __init__(
        self,
        keyring: Keyring,
        limits: RateLimits,
        defaults: DefaultLimits,
        targets_of: TargetsOf,
        shared: SharedConcurrencyLimits | None = None,
    ) -> None:
        self._keyring = keyring
        self._limits = limits
        self._defaults = defaults
        self._targets_of = targets_of
        self._shared = shared
        self._policy: Policy | None = None
        self._generation = limits.generation
        self._cached: dict[tuple[str | None, str, tuple[str, ...]], RequestPolicy] = {}
        # By project and model.
        self._target_windows: dict[tuple[str, str], Sequence[RateLimitWindow]] = {}
        self._models: dict[str, set[str]] = {}  # by project: models with windows of their own
        self._concurrency_limits: dict[str, ConcurrencyLimit] = {}

    def policy_of(self, caller: Caller, model: str) -> RequestPolicy:
        """Returns the policy of this caller with this model."""
        self._clear_if_stale()
        key = (caller.key_id, model, tuple(self._targets_of(model)))
        policy = self._cached.get(key)
        if policy is None:
            policy = self._cached[key] = self._build(caller, model)
        return policy

    def target_windows(self, project: Project, model: str) -> Sequence[RateLimitWindow]:
        """Returns the windows of a project with the model of a chosen target of a route."""
        self._clear_if_stale()
        key = (project.id, model)
        windows = self._target_windows.get(key)
        if windows is None:
            limits = self._project_limits(project, model, self._defaults)
            windows = self._target_windows[key] = self._limits.windows(limits)
        return windows

    def _clear_if_stale(self) -> None:
        if (
            self._policy is not self._keyring.policy
            or self._generation != self._limits.generation
            or len(self._cached) > CACHED_LIMIT
        ):
            self._policy, self._generation = self._keyring.policy, self._limits.generation
            self._cached.clear()
            self._target_windows.clear()
            self._models.clear()

    def resolve_alias(self, model: str) -> str:
        """Returns the target of an alias. A route to several models is counted under its own name
        until one of them answers."""
        targets = self._targets_of(model)
        return targets[0] if len(targets) == 1 else model

    def is_route(self, model: str) -> bool:
        """True if a name routes to several models, each with limits of its own."""
        return len(self._targets_of(model)) > 1

    def allows(self, project: Project, model: str) -> bool:
        """True if the project may use a model."""
        return project.models is None or project.models.allow(model, self._targets_of(model))

    def _build(self, caller: Caller, model: str) -> RequestPolicy:
        project = caller.project
        assert project is not None, "a caller of a model has a project"
        counted, is_route = self.resolve_alias(model), self.is_route(model)
        limits = self._key_limits(caller)
        if not is_route:
            limits += self._project_limits(project, counted, self._defaults)
        elif model in project.rate_limits and model not in self._targets_of(model):
            # Administered limits of the route's own name apply besides those of its targets.
            limits += self._project_limits(project, model, DefaultLimits())
        return RequestPolicy(
            model=counted,
            is_route=is_route,
            rate_windows=self._limits.windows(limits),
            concurrency_limits=self._concurrency_limits_of(caller, project),
            is_allowed=self.allows(project, model),
            is_restricted=project.models is not None
            or bool(project.forbidden_tools)
            or project.has_zero_retention,
        )

    def _key_limits(self, caller: Caller) -> list[RateLimit]:
        defaults, scope = self._defaults, f"key {caller.key_id}"
        if caller.key_id is None:
            return []
        return _limits(scope, defaults.key_requests_per_minute, defaults.key_tokens_per_minute)

    def _project_limits(
        self, project: Project, model: str, defaults: DefaultLimits
    ) -> list[RateLimit]:
        own = project.rate_limits.get(model, {})
        name = (model or "this model") if self._has_own_windows(project, model) else "another model"
        scope = f"{name} in project {project.id}"
        limits = _limits(
            scope,
            own.get("max_requests_per_1_minute", defaults.requests_per_minute),
            own.get("max_tokens_per_1_minute", defaults.tokens_per_minute),
        )
        daily = own.get("max_requests_per_1_day")
        if daily is not None:
            limits.append(RateLimit(scope=scope, unit="requests", limit=daily, window_s=DAY_S))
        return limits

    def _has_own_windows(self, project: Project, model: str) -> bool:
        """True if a model is counted by itself; models beyond `MODELS_LIMIT` share windows."""
        if model in project.rate_limits:
            return True
        models = self._models.setdefault(project.id, set())
        if len(models) < MODELS_LIMIT:
            models.add(model)
        return model in models

    def _concurrency_limits_of(self, caller: Caller, project: Project) -> list[ConcurrencyLimit]:
        limits = {f"project {project.id}": self._defaults.project_concurrent_requests}
        if caller.key_id is not None:
            limits[f"key {caller.key_id}"] = self._defaults.key_concurrent_requests
        return [
            self._concurrency_limits.setdefault(scope, ConcurrencyLimit(scope, limit, self._shared))
            for scope, limit in limits.items()
            if limit is not None
        ]


def _limits(scope: str, requests: int | None, tokens: int | None) -> list[RateLimit]:
    limits = {"requests": requests, "tokens": tokens}
    return [
        RateLimit(scope=scope, unit=unit, limit=limit)
        for unit, limit in limits.items()
        if limit is not None
    ]
