"""Extras: what lacks is one sentence, and the names are those of pyproject.toml."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from llm_backend.app.served_models import build_served_models
from llm_backend.backends.registry import Registry
from llm_backend.errors import ModelNotFound
from llm_backend.extras import EXTRAS, install_command, is_installed
from llm_backend.settings import SettingsError, load_settings
from tests.missing import missing
from tests.tiny_diffusion import HAS_LIBRARY, use_library

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
COMMAND = install_command("local")


def distributions(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w-]+", one) for one in requirements)
    return {name[0].lower().replace("_", "-") for name in names if name}


@pytest.fixture
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)


@pytest.mark.parametrize("extra", EXTRAS)
def test_modules_of_an_extra_are_those_of_its_requirements(extra):
    if extra == "draw" and not is_installed(extra):
        pytest.skip("it takes minutes to compile: `make dev` leaves it out")
    if not is_installed(extra):
        missing(f"the extra `{extra}` is not installed: make dev")
    required = distributions(PROJECT["optional-dependencies"][extra])
    found = packages_distributions()
    provided = {module: {one.lower().replace("_", "-") for one in found[module]}
                for module in EXTRAS[extra]}  # fmt: skip

    own = {module for module, names in provided.items() if names & required}
    assert set(EXTRAS[extra]) - own <= {"numpy"}  # gguf's own requirement
    assert not any(names & distributions(PROJECT["dependencies"]) for names in provided.values())


@pytest.mark.skipif(HAS_LIBRARY, reason="the library itself is installed")
def test_stand_in_of_a_library_is_gone_after_its_test():
    with pytest.MonkeyPatch.context() as patch:
        use_library(patch)
        import stable_diffusion_cpp

        assert is_installed("draw")
        assert stable_diffusion_cpp.__version__ == "stand-in"

    assert not is_installed("draw")


@pytest.mark.usefixtures("_no_engine")
def test_default_model_is_none_without_the_engine(tmp_path):
    settings = load_settings({"data_dir": tmp_path})

    assert not is_installed("local")
    assert (settings.models, build_served_models(settings)) == ((), [])


@pytest.mark.usefixtures("_no_engine")
@pytest.mark.parametrize(
    "settings", [{"models": ("builtin",)}, {"aliases": ("a",)}, {"draft_models": ("a.gguf",)},
                 {"tool_formats": ("a=hermes",)}],
)  # fmt: skip
def test_settings_of_local_models_without_the_engine_name_the_extra(settings, tmp_path):
    with pytest.raises(SettingsError, match=re.escape(COMMAND)):
        build_served_models(load_settings({"data_dir": tmp_path, **settings}))


class Upstreams:
    """Upstreams that serve only the model `far`."""

    def serves(self, model, operation=()):
        return model == "far"

    async def models(self):
        return []


@pytest.mark.usefixtures("_no_engine")
def test_model_that_only_the_engine_could_serve_is_not_found_and_names_the_extra():
    with pytest.raises(ModelNotFound, match=re.escape(COMMAND)):
        Registry([]).targets("any")
    with pytest.raises(ModelNotFound, match=re.escape(COMMAND)):
        Registry([], upstreams=Upstreams()).targets("builtin")
    with pytest.raises(ModelNotFound) as error:
        Registry([], upstreams=Upstreams()).targets("near")
    assert COMMAND not in error.value.message
