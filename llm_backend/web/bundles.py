"""Bundles: a script of the page and the modules that it imports, as one file.

Browsers send six requests at a time to a server, and the first view of the page has forty modules.
As one file they are one request. Nothing is renamed: each module becomes a function that returns
its exports, so that its other names stay private. Comments on lines of their own are left out: they
are a fifth of the compressed bytes.

    const dom_js = await (async () => {
    ...
    return { byId, make };
    })();

Modules that are loaded later take their imports from the bundle that contains them, so that each
module runs once. A module imports names in braces, and exports only declarations, each from the
beginning of a line; none of its texts in backticks has a line that begins like a comment.
"""

import re
from collections.abc import Mapping, Sequence

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+\.js)";', re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export) .*", re.MULTILINE)
# Comments on lines of their own.
_COMMENT = re.compile(r"^[ \t]*(?://.*|/\*\*(?:[^*]|\*(?!/))*\*/)\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)


def bundle_modules(sources: Mapping[str, str], scripts: Sequence[str]) -> Mapping[str, str]:
    """Returns the texts of all modules as the page loads them, by name. A script contains the
    modules that it imports, directly or through others, unless an earlier script contains them."""
    owners: dict[str, str] = {}  # the script of each module, a module after its imports
    for script in scripts:
        owners.update(dict.fromkeys(_closure(script, sources, owners), script))
    return {name: _link_module(name, sources, owners) for name in sources}


def _closure(name: str, sources: Mapping[str, str], known: Mapping[str, str]) -> Sequence[str]:
    """Returns a module and those that it imports, in the order in which they run. Raises
    `ValueError` for modules that import each other."""
    ordered: list[str] = []
    entered: set[str] = set()

    def visit(module: str) -> None:
        if module in known or module in ordered:
            return
        if module in entered:
            raise ValueError(f"{module} imports itself through others: it cannot be in a bundle.")
        entered.add(module)
        for _, imported in _IMPORT.findall(sources[module]):
            visit(imported)
        ordered.append(module)

    visit(name)
    return ordered


def _link_module(name: str, sources: Mapping[str, str], owners: Mapping[str, str]) -> str:
    """Returns the text of a module, with the modules that are in its bundle."""
    inner = [one for one, owner in owners.items() if owner == name != one]
    heads: dict[str, None] = {}  # imports of other bundles, once each

    def assign(found: re.Match[str]) -> str:
        names, imported = found.groups()
        owner = owners.get(imported)
        if owner is None:
            return found[0]
        variable = _variable(imported)
        if owner == imported:
            heads[f'import * as {variable} from "./{owner}";\n'] = None
        elif owner != name:
            heads[f'import {{ {variable} }} from "./{owner}";\n'] = None
        return f"const {{{names.replace(' as ', ': ')}}} = {variable};"

    functions = [_wrap_module(one, _IMPORT.sub(assign, sources[one])) for one in inner]
    text = _IMPORT.sub(assign, sources[name])
    exports = f"\nexport {{ {', '.join(map(_variable, inner))} }};\n" if inner else ""
    whole = "".join([*heads, *functions, text, exports])
    return _COMMENT.sub("", whole) if inner else whole


def _wrap_module(name: str, text: str) -> str:
    """Returns a module as a constant: the result of a function that returns its exports. Raises
    `ValueError` for other forms of imports and exports."""
    exports = f"return {{ {', '.join(_EXPORT.findall(text))} }};"
    body = _EXPORT.sub("", text)
    if other := _OTHER.search(body):
        raise ValueError(f"{name} cannot be in a bundle: {other[0]}")
    return f"const {_variable(name)} = await (async () => {{\n{body}\n{exports}\n}})();\n"


def _variable(name: str) -> str:
    return name.replace(".", "_")
