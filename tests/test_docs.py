"""Documents say what is true: generated pages are in step, and README's commands exist."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from llm_backend.cli import app
from llm_backend.cli.reference import cli_markdown
from llm_backend.contract import coverage_markdown, load_document
from llm_backend.settings import Settings, configuration_markdown
from llm_backend.settings.bounds import BoundsSettings
from llm_backend.settings.settings import SETTING_GROUPS
from llm_backend.store.database.metadata import metadata

ROOT = Path(__file__).parents[1]


def test_the_coverage_page_is_generated():
    page = (ROOT / "docs/coverage.md").read_text()

    assert page == coverage_markdown(load_document().operations), "run `make docs`"


def test_the_configuration_page_is_generated():
    page = (ROOT / "docs/configuration.md").read_text()

    assert page == configuration_markdown(), "run `make docs`"


@pytest.mark.parametrize(
    ("setting", "bounds"),
    [
        ("slots", "at least 1, at most 256"),
        ("cells_memory_share", "above 0, at most 1"),
        ("body_limit_bytes", "at least 1024"),
        ("prefix_ram_bytes", "at least 0"),
        ("log_level", ""),
    ],
)
def test_the_configuration_page_has_the_bounds_of_numbers(setting, bounds):
    rows = [row.split(" | ") for row in (ROOT / "docs/configuration.md").read_text().split("\n")]

    assert next(row[3] for row in rows if row[0] == f"| `{setting}`").strip() == bounds


def test_the_page_of_commands_is_generated():
    page = (ROOT / "docs/cli.md").read_text()

    assert page == cli_markdown(app), "run `make docs`"
    assert all(
        row.rstrip(" |").split("|")[-1].strip() for row in page.splitlines() if row[:3] == "| `"
    )


def test_api_page_explains_every_own_operation():
    own = yaml.safe_load((ROOT / "openapi/extensions.yaml").read_text())["paths"]
    page = (ROOT / "docs/api.md").read_text().partition("\n## This server's own operations\n")[2]

    explained = set(re.findall(r"`(?:GET|POST) (/[^?`]*)", page))
    assert explained == set(own)


def test_retention_page_lists_every_table_with_its_limits():
    page = (ROOT / "docs/retention.md").read_text().partition("## Every table")[2]
    rows = [row.strip("| ").split(" | ") for row in page.splitlines() if row.startswith("| `")]
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]

    assert sorted(told) == sorted(metadata.tables)
    assert all(len(row) == 3 and row[2] for row in rows)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[2])}
    assert named - {"expires_after"} <= set(Settings.model_fields)


BOUND = re.compile(r"\w+_(limit(_\w+)?|timeout_s|deadline_s|grace_s|slice_s|per_s|check_bytes)")


def test_security_page_lists_every_limit():
    page = (ROOT / "docs/security.md").read_text()
    table = page.partition("| resource | limit |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", table)
    elsewhere = set(re.findall(r"`([a-z]+_[a-z_]+)`", page)) - {
        "origin_not_allowed",
        "cached_tokens",
    }
    bounds = {name for name in Settings.model_fields if BOUND.fullmatch(name)}

    assert set(named) | elsewhere <= set(Settings.model_fields)
    assert bounds | (BoundsSettings.model_fields.keys() - {"response_validation"}) <= set(named)
    assert len(set(named)) == len(named)


def test_every_setting_has_a_description():
    assert all(field.description for field in Settings.model_fields.values())


def test_every_setting_belongs_to_a_group_in_the_order_of_the_flags():
    shown = [name for group in SETTING_GROUPS.values() for name in group.model_fields]

    assert shown == list(Settings.model_fields)


def test_every_command_in_the_readme_exists():
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()

    assert {"run", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in set(
        re.findall(r"llm-backend (serve|operations|models convert|systemd|completion|manual)", text)
    ):
        result = CliRunner().invoke(app, [*command.split(), "--help"])
        assert result.exit_code == 0, command
    for flag in set(re.findall(r"llm-backend serve [^`\n]*?(--[a-z-]+)", text)):
        assert flag in CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "k8s/README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_link_target_exists(page):
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text()):
        linked = page.parent / target if target else page

        assert linked.exists(), target
        assert not heading or heading in headings(linked), f"{target}#{heading}"


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_architecture_page_fits_in_one_sitting():
    lines = (ROOT / "ARCHITECTURE.md").read_text().splitlines()

    assert len(lines) <= 150
    assert max(map(len, lines)) <= 160


def test_changelog_is_short():
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()

    assert len(lines) <= 80
    assert max(map(len, lines)) <= 160


def test_docstring_of_each_package_names_its_modules():
    packages = sorted(path.parent for path in (ROOT / "llm_backend").rglob("__init__.py"))
    texts = {
        one: ast.get_docstring(ast.parse((one / "__init__.py").read_text())) for one in packages
    }
    modules = {package: direct_modules(package) for package in packages}
    unnamed = [
        f"{package.relative_to(ROOT)}: {name}"
        for package, names in modules.items()
        for name in sorted(names)
        if not re.search(rf"(?<![\w/.]){re.escape(name)}(?!\w)", texts[package] or "")
    ]
    missing = [
        f"{package.relative_to(ROOT)}: {name}"
        for package, text in texts.items()
        for name in re.findall(r"^(?:- )?`?(\w+(?:\.py|\.js|/))`?\s\s", text or "", re.MULTILINE)
        if name not in modules[package]
    ]

    assert len(packages) > 50
    assert sum(len(names) for names in modules.values()) > 500
    assert (unnamed, missing) == ([], [])
    assert [
        one for one, text in texts.items() if re.search(r"^(- )?`\w+\.\w+`\s\s", text or "", re.M)
    ] == []


def direct_modules(package: Path) -> set[str]:
    """Its modules, and packages with a slash; for the web pages also their JavaScript modules."""
    packages = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    return packages | modules | {path.name for path in package.glob("static/*.js")}


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/glossary.md"])
def test_names_beside_links_are_defined_in_the_linked_modules(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\[`([A-Z]\w+|[a-z]\w*)(?:\.(?!py`)(\w+))?`\]\(([^)]+\.py)\)", text)

    assert links or page != "ARCHITECTURE.md"
    for name, method, target in links:
        module = ast.parse((ROOT / page).parent.joinpath(target).read_text())
        (found,) = [node for node in module.body if getattr(node, "name", None) == name]
        if method:
            assert method in {getattr(node, "name", None) for node in found.body}, (name, method)


def test_architecture_page_draws_the_layers_of_import_linter():
    page = (ROOT / "ARCHITECTURE.md").read_text().partition("## Layers")[2]
    drawing = page.partition("```")[2].partition("```")[0]
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    held = [
        {name.strip().removeprefix("llm_backend.") for name in row.split("|")} for row in layers
    ]

    drawn = [
        {name.strip().replace(" ", "_").replace("-", "_") for name in re.split(r",|\s{2,}", row)}
        for row in drawing.splitlines()
        if re.search(r"[a-z]", row)
    ]
    drawn = [{name for name in row if name} for row in drawn]
    assert drawn == [row for row in held if row != {"__main__"}]


def test_each_class_name_of_the_package_stands_once():
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / "llm_backend").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.removeprefix("_"), []).append(f"{path}:{node.lineno}")

    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_the_operations_command_prints_every_operation_as_json():
    import json

    done = subprocess.run(
        [sys.executable, "-m", "llm_backend", "operations", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = json.loads(done.stdout)

    assert len(rows) >= 281
    assert all(
        set(row) == {"operationId", "method", "path", "tag", "summary", "answered", "controller"}
        and row["answered"] in ("local", "upstream", "unsupported")
        for row in rows
    )


def test_pre_commit_hooks_are_the_parts_of_lint():
    makefile = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [one for one in config["repos"][0]["hooks"] if one.get("stages") != ["commit-msg"]]

    assert config["default_stages"] == ["pre-commit"]
    tools = [
        line.split("/")[-1].removesuffix(" .") for line in makefile.splitlines() if "BIN" in line
    ]
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    assert [entry.removesuffix(" --force-exclude") for entry in entries] == [
        *(tool.removesuffix(" --check") for tool in tools),
        "make --silent words",
    ]


def test_pre_commit_checks_the_subjects_of_commits():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (hook,) = [one for one in config["repos"][0]["hooks"] if one.get("stages") == ["commit-msg"]]

    assert config["default_install_hook_types"] == ["pre-commit", "commit-msg"]
    assert (ROOT / hook["entry"].split()[-1]).is_file()
