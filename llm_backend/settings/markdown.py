"""The text of `docs/configuration.md`."""

from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from llm_backend.settings.kinds import PREFIX
from llm_backend.settings.model_entry import ModelSettings, RequestDefaults
from llm_backend.settings.responses import PromptSettings
from llm_backend.settings.settings import SETTING_GROUPS
from llm_backend.settings.upstream_entry import UpstreamEntry

_HEAD = """\
# Configuration

Generated from `llm_backend/settings/` by `llm-backend configuration`.

A setting's flag is its name with dashes (`--log-level`, `--no-web`; `--model` and other
lists, in the singular, are repeated for each value); secrets and nested settings have no flag.
A flag of `llm-backend serve` overrides the environment, the environment overrides the file
of `--config`, the file overrides the default. Lists are comma-separated in the environment
and lists in the file; nested settings (`backends`, `routes`, `prices`) are JSON in the
environment. An empty environment variable counts as unset; an empty text in a flag or in the
file is refused, as are a list of white space and commas, unknown names, and a key that is in one
mapping of the file twice.
"""

_MODEL = """
## One model

An entry under `models` in the file is a path, or a mapping of these keys; a key that is
left out has the value of the setting above.
"""

_UPSTREAM = """
## One upstream

An entry under `backends` in the file, or in the JSON list of its variable, is a mapping
of these keys; [routing.md](routing.md) has examples.
"""

_PROMPT = """
## One prompt

An entry under `prompts` in the file is a mapping of these keys.
"""


def configuration_markdown() -> str:
    """Describes every setting by its group, then the entries with settings of their own."""
    return "".join([_HEAD, *_groups(), *_parts()])


def _groups() -> Iterator[str]:
    for title, group in SETTING_GROUPS.items():
        yield f"\n## {title}\n\n{group.__doc__}\n\n"
        yield "| setting | environment | default | bounds | meaning |\n|---|---|---|---|---|\n"
        for name, field in group.model_fields.items():
            variables = ", ".join(f"`{one}`" for one in _variables(name, field))
            facts = f"{_default(field)} | {_bounds(field)}"
            yield f"| `{name}` | {variables} | {facts} | {field.description} |\n"


def _parts() -> Iterator[str]:
    yield from (_MODEL, _keys(ModelSettings))
    names = ", ".join(f"`{name}`" for name in RequestDefaults.model_fields)
    yield f"\n`defaults` has the keys {names}.\n"
    yield from (_UPSTREAM, _keys(UpstreamEntry))
    yield from (_PROMPT, _keys(PromptSettings))


def _keys(entry: type[BaseModel]) -> str:
    """The table of an entry's keys."""
    rows = [
        f"| `{name}` | {_default(field)} | {_bounds(field)} | {field.description} |\n"
        for name, field in entry.model_fields.items()
    ]
    return "".join(["\n| key | default | bounds | meaning |\n|---|---|---|---|\n", *rows])


def _variables(name: str, field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(one) for one in alias.choices]
    return [PREFIX + name.upper()]


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default_factory is not None:
        return ""
    return _format_default(field.default)


def _bounds(field: FieldInfo) -> str:
    """Describes the least and the greatest number that are allowed."""
    facts = [field, *_facts_of_parts(field.annotation)]
    constraints = [one for fact in facts for one in getattr(fact, "metadata", ())]
    return ", ".join(
        f"{words} {bound}"
        for words, name in (("at least", "ge"), ("above", "gt"), ("at most", "le"))
        for one in constraints
        if (bound := getattr(one, name, None)) is not None
    )


def _facts_of_parts(annotation: object) -> Iterator[object]:
    """Yields the metadata of a type's parts, such as `Annotated[int, Field(ge=0)] | None`."""
    for part in get_args(annotation):
        yield from getattr(part, "__metadata__", ())
        yield from _facts_of_parts(part)


def _format_default(default: object) -> str:
    if default is None or default == () or isinstance(default, Mapping):
        return ""
    if isinstance(default, tuple):
        return f"`{', '.join(default)}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
