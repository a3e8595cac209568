"""Request policies: the limits of a caller with a model."""

from types import SimpleNamespace

from llm_backend.access.authentication.policy import ModelPermissions, Policy, Project
from llm_backend.access.authentication.principal import Caller
from llm_backend.access.limits.rate_limits import RateLimits
from llm_backend.access.limits.request_policy import MODELS_LIMIT, DefaultLimits, RequestPolicies

OWN = {"own": {"max_requests_per_1_minute": 7}}
DENIED = ModelPermissions(is_allow_list=False, models=frozenset({"big"}))


def test_unknown_model_names_share_one_limit():
    project = Project(id="proj_1", name="p", rate_limits=OWN)
    ring = SimpleNamespace(policy=Policy(projects={}, emails={}))
    plans = RequestPolicies(ring, RateLimits(), DefaultLimits(requests_per_minute=5), lambda _: ())
    caller = Caller(key_id="k", project=project)
    seen = {plans.policy_of(caller, f"m{n}").rate_windows[0] for n in range(MODELS_LIMIT + 500)}

    assert len(seen) == MODELS_LIMIT + 1
    assert plans.policy_of(caller, "m0").rate_windows[0].scope == "m0 in project proj_1"
    assert plans.policy_of(caller, "own").rate_windows[0].scope == "own in project proj_1"


def test_route_named_like_a_step_has_the_limits_of_its_steps():
    rates = {"own": {"max_requests_per_1_minute": 7}}
    project = Project(id="proj_1", name="p", rate_limits=rates)
    ring = SimpleNamespace(policy=Policy(projects={}, emails={}))
    usual = DefaultLimits(requests_per_minute=5, tokens_per_minute=9)
    plans = RequestPolicies(ring, RateLimits(), usual, lambda _: ("m", "n"))
    caller = Caller(key_id="k", project=project)
    plan = plans.policy_of(caller, "m")

    assert (plan.is_route, plan.rate_windows) == (True, [])
    assert [one.limit for one in plans.target_windows(project, "m")] == [5, 9]
    assert [one.limit for one in plans.policy_of(caller, "own").rate_windows] == [7]


def test_policy_follows_an_alias_that_a_reload_changes():
    project = Project(id="proj_1", name="p", models=DENIED)
    ring = SimpleNamespace(policy=Policy(projects={}, emails={}))
    targets = {"fast": ("small",)}
    plans = RequestPolicies(ring, RateLimits(), DefaultLimits(), lambda name: targets.get(name, ()))
    caller = Caller(key_id="k", project=project)
    before = plans.policy_of(caller, "fast")
    targets["fast"] = ("big",)
    after = plans.policy_of(caller, "fast")

    assert (before.is_allowed, before.model) == (True, "small")
    assert (after.is_allowed, after.model) == (False, "big")
