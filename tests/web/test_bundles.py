"""Bundles of modules: what they hold, in which order, and that modules loaded later share them."""

import re

import pytest

from llm_backend.web.bundles import bundle_modules
from llm_backend.web.pages import BUNDLES, STATIC

SOURCES = {file.name: file.read_text() for file in STATIC.glob("*.js")}
IMPORTED = re.compile(r'(?:from|import\(?) ?"\./([^"]+)"')  # in any form


def imports_of(text: str) -> set[str]:
    return {name for name in IMPORTED.findall(text) if not name.startswith("vendor/")}


def test_bundles_of_the_page_leave_no_module_to_be_requested_at_its_start():
    served = bundle_modules(SOURCES, BUNDLES)

    first_view = set().union(
        *(re.findall(r'^import .*"\./(.*)"', served[one], re.M) for one in BUNDLES)
    )
    assert first_view <= set(BUNDLES)
    page = (STATIC / "index.html").read_text()
    assert re.findall(r'<script src="web/([^"]+)" type="module"', page) == list(BUNDLES)


def test_bundles_of_the_page_are_the_only_source_of_their_modules():
    served = bundle_modules(SOURCES, BUNDLES)

    bundled = set(re.findall(r"^const (\w+)_js = await", "".join(served.values()), re.M))
    assert len(bundled) > 30
    for name, text in served.items():
        assert not {f"{one}.js" for one in bundled} & imports_of(text), name


@pytest.mark.parametrize(
    "line",
    ["export default 1;", "export { a };", "export let a = 1;", 'import * as b from "./b.js";'],
)
def test_module_with_another_form_of_import_or_export_is_refused(line):
    sources = {"app.js": 'import { a } from "./a.js";\n', "a.js": f"const a = 1;\n{line}\n"}

    with pytest.raises(ValueError, match=r"a\.js cannot be in a bundle: (im|ex)port"):
        bundle_modules(sources, ["app.js"])


def test_bundle_keeps_the_text_of_a_module_without_imports():
    sources = {"app.js": "export const a = 1;\n", "later.js": "export const b = 2;\n"}

    assert bundle_modules(sources, ["app.js"]) == sources


def test_bundles_have_no_comments_on_lines_of_their_own():
    served = bundle_modules(SOURCES, BUNDLES)
    sources = {
        "app.js": '// A.\nimport { a } from "./a.js";\n',
        "a.js": '/** Two\n *  lines. */\nexport const a = "//"; // one\n  /** B. */\n  // c\na;\n',
    }

    assert not re.search(r"^[ \t]*(//|/\*\*)", served["app.js"], re.M)
    assert 'const a = "//"; // one\na;\n' in bundle_modules(sources, ["app.js"])["app.js"]
    assert "B." not in bundle_modules(sources, ["app.js"])["app.js"]


def test_bundle_refuses_modules_that_import_each_other():
    sources = {
        "app.js": 'import { a } from "./a.js";',
        "a.js": 'import { b } from "./b.js";\nexport const a = 1;',
        "b.js": 'import { a } from "./a.js";\nexport const b = 2;',
    }

    with pytest.raises(ValueError, match=r"a\.js imports itself"):
        bundle_modules(sources, ["app.js"])


def test_bundled_modules_become_functions_that_return_their_exports():
    sources = {
        "app.js": 'import { all, log as note } from "./log.js";\nnote(all);\n',
        "log.js": "const own = [];\nexport const all = () => own;\nexport class log {}\n",
        "later.js": 'import {\n  all,\n} from "./log.js";\nimport { x } from "./x.js";\n',
        "x.js": "export const x = 1;\n",
    }

    served = bundle_modules(sources, ["app.js"])

    assert served["app.js"] == (
        "const log_js = await (async () => {\n"
        "const own = [];\nconst all = () => own;\nclass log {}\n\n"
        "return { all, log };\n})();\n"
        "const { all, log: note } = log_js;\nnote(all);\n"
        "\nexport { log_js };\n"
    )
    assert served["later.js"] == (
        'import { log_js } from "./app.js";\n'
        'const {\n  all,\n} = log_js;\nimport { x } from "./x.js";\n'
    )


def test_bundle_takes_modules_of_the_script_before_it_from_there():
    sources = {
        "start.js": 'import { a } from "./a.js";\nexport const key = a;\n',
        "a.js": "export const a = 1;\n",
        "app.js": 'import { b } from "./b.js";\n',
        "b.js": 'import { a } from "./a.js";\nimport { key } from "./start.js";\n'
        "export const b = a + key;\n",
    }

    assert bundle_modules(sources, ["start.js", "app.js"])["app.js"] == (
        'import { a_js } from "./start.js";\nimport * as start_js from "./start.js";\n'
        "const b_js = await (async () => {\n"
        "const { a } = a_js;\nconst { key } = start_js;\nconst b = a + key;\n\n"
        "return { b };\n})();\n"
        "const { b } = b_js;\n"
        "\nexport { b_js };\n"
    )
