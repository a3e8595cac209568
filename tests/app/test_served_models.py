"""Served models of the settings, and the errors of invalid entries."""

import re
import struct
from pathlib import Path

import pytest
import yaml

from llm_backend.app.model_planning import ModelPlanner
from llm_backend.app.served_models import ServedModel, build_served_models, check_named_models
from llm_backend.backends.local.chat_formats import CHAT_FORMATS
from llm_backend.engine.messages import ModelKind, PrefixLimits
from llm_backend.settings import Settings, SettingsError, load_settings
from tests.engine.gguf_models import write_llama
from tests.engine.projectors import write_ears, write_eyes

EMPTY = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)


@pytest.fixture
def file(tmp_path) -> Path:
    """A model without weights."""
    path = tmp_path / "small.gguf"
    path.write_bytes(EMPTY)
    return path


def loaded(tmp_path: Path, *models: object, **more: object) -> Settings:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"models": list(models), **more}))
    return load_settings({"data_dir": tmp_path / "data"}, config)


def served(tmp_path: Path, *models: object, **more: object) -> list[ServedModel]:
    return build_served_models(loaded(tmp_path, *models, **more))


def test_served_model_follows_its_entry(tmp_path, file):
    entry = {
        "path": str(file), "id": "parrot", "aliases": ["gpt-4"], "role": "chat",
        "chat_template": "zephyr", "personalities": {"pirate": "Arr."}, "personality": "pirate",
        "defaults": {"temperature": 0.2, "stop": "END"}, "context_tokens": 128, "slots": 2,
        "batch_tokens": 64, "threads": 1, "gpu_layers": -1, "cache_type": "q8_0", "mmap": False,
        "mlock": True, "flash_attention": True,
    }  # fmt: skip
    (model,) = served(tmp_path, entry)

    assert list(model.names) == ["parrot", "gpt-4", "parrot:pirate", "gpt-4:pirate"]
    assert model.chat_format is CHAT_FORMATS["zephyr"]
    assert (model.personality, model.personalities) == ("pirate", {"pirate": "Arr."})
    assert model.defaults == {"temperature": 0.2, "stop": ["END"]}
    engine = model.engine
    assert (engine.kind, engine.gpu_layers, engine.cache_type) == (ModelKind.CHAT, None, "q8_0")
    assert (engine.mmap, engine.mlock, engine.slots, engine.context_tokens) == (False, True, 2, 128)


def test_served_models_have_prefix_files_if_a_folder_is_set(tmp_path, file):
    kept = {"prefix_cache_dir": str(tmp_path / "kept"), "prefix_cache_bytes": "2 GB"}
    (with_folder,) = served(tmp_path, str(file), prefix_cache_min_tokens=100, **kept)
    (without,) = served(tmp_path, str(file))

    assert with_folder.engine.prefixes == PrefixLimits(
        folder=str(tmp_path / "kept"), bytes=2 * 10**9, tokens=100
    )
    assert without.engine.prefixes is None


def test_served_model_has_the_limit_of_its_prefixes_in_host_memory(tmp_path, file):
    (limited,) = served(tmp_path, str(file), prefix_ram_bytes="2 GB")
    (without,) = served(tmp_path, str(file))

    assert limited.engine.prefix_ram_limit_bytes == 2 * 10**9
    assert without.engine.prefix_ram_limit_bytes is None


def test_served_model_defaults_to_flat_settings(tmp_path, file):
    builtin, small = served(
        tmp_path, "builtin", {"path": str(file), "slots": 3, "kv_unified": True},
        slots=5, context_tokens=99, aliases=["gpt-4"], draft_models=[f"small={file}"],
        tool_formats=["hermes"],
    )  # fmt: skip

    assert (builtin.engine.slots, small.engine.slots) == (5, 3)
    assert small.engine.context_tokens == 99
    assert (builtin.engine.kv_unified, small.engine.kv_unified) == (False, True)
    assert builtin.aliases == ("gpt-4",)
    assert small.engine.draft_model_path == file
    assert small.tool_format == "hermes"


def test_served_model_template_is_a_name_file_text_or_frames(tmp_path, file):
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages[0].content }}")
    turns = {"user": "U {{ text }}", "assistant": "A {{ text }}", "opening": "A", "stop": ["U"]}
    given = ["chatml", str(template), "{% if true %}x{% endif %}", turns]
    models = served(
        tmp_path,
        *(
            {"path": str(file), "id": str(number), "chat_template": one}
            for number, one in enumerate(given)
        ),
    )

    sources = [model.chat_format.source for model in models if model.chat_format]
    assert sources[0] == CHAT_FORMATS["chatml"].source
    assert sources[1:3] == ["{{ messages[0].content }}", "{% if true %}x{% endif %}"]
    assert models[3].chat_format is not None
    assert models[3].chat_format.stop == ("U",)


def test_served_model_path_may_be_a_hub_name_or_in_the_models_folder(tmp_path, file):
    folder = tmp_path / "data/models/owner/name"
    folder.mkdir(parents=True)
    for name in ("m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m.gguf", "m-BF16-00002-of-00002.gguf"):
        (folder / name).write_bytes(EMPTY)
    models = served(tmp_path, "owner/name:q8_0", "owner/name/m-Q4_K_M.gguf", str(file))

    assert [model.card.id for model in models] == ["m-Q8_0", "m-Q4_K_M", "small"]
    with pytest.raises(SettingsError, match=r"may be m-Q4_K_M.gguf, m-Q8_0.gguf: say which"):
        served(tmp_path, "owner/name")
    with pytest.raises(SettingsError, match="models pull other/one` brings it"):
        served(tmp_path, "other/one")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"slts": 1}, "`models[0].slts` is unknown. Did you mean slots?"),
        (
            {"defaults": {"top_pp": 1}},
            "`models[0].defaults.top_pp` is unknown. Did you mean top_p?",
        ),
        ({"xyzzy": 1}, "`models[0].xyzzy` is unknown."),
        ({"slots": 0}, "`models[0].slots` cannot be used"),
        ({"role": "painter"}, "`models[0].role` cannot be used"),
        ({"defaults": {"temperature": 3}}, "`models[0].defaults.temperature` cannot be used"),
        ({"defaults": {"stop": [""]}}, "`models[0].defaults.stop[0]` cannot be used"),
        ({"personalities": {"a": ""}}, "`models[0].personalities.a` cannot be used"),
        ({"personality": "b"}, "no personality `b`"),
        ({"chat_template": "zephir"}, "known name; the names are: llama-2-chat"),
        ({"chat_template": "{% if %}"}, "chat template of the model `small` cannot be used"),
        ({"tool_format": "x"}, "tool format `x` is unknown"),
        ({"draft_model": "none.gguf"}, "none.gguf cannot be read"),
        ({"aliases": ["small"]}, "`small` of the model `small` is taken"),
        ({"grammar_file": "none.lark"}, "Cannot read the grammar none.lark"),
        ({"path": "none.gguf"}, "Cannot read the model none.gguf"),
    ],
)
def test_served_models_report_an_invalid_entry_in_one_sentence(tmp_path, file, more, sentence):
    with pytest.raises(SettingsError) as caught:
        served(tmp_path, {"path": str(file), **more})

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_served_model_lists_the_modalities_of_its_projector(tmp_path, file):
    eyes = write_eyes(tmp_path / "eyes.gguf")
    entry = {"path": str(file), "mmproj": str(eyes), "image_tokens": 64}
    (model,) = served(tmp_path, entry, audio_limit_s=7)

    assert model.engine.projector_path == eyes
    assert (model.engine.image_tokens, model.engine.audio_limit_s) == (64, 7)
    assert dict(model.card.more)["input_modalities"] == ("text", "image")
    assert model.card in {model.card}  # by which what is found out of a model is remembered


def test_served_model_projector_may_be_a_hub_name(tmp_path, file):
    folder = tmp_path / "data/models/owner/name"
    folder.mkdir(parents=True)
    ears = write_ears(folder / "mmproj-F16.gguf")
    write_ears(tmp_path / "data/models/mine.gguf")
    named = [{"path": str(file), "id": given, "mmproj": given}
             for given in ("owner/name", "owner/name:Q4_K_M", "mine.gguf")]  # fmt: skip

    hub, quantized, _ = served(tmp_path, *named)
    write_ears(folder / "mmproj-BF16.gguf")
    with pytest.raises(SettingsError, match=r"may be mmproj-BF16.gguf, mmproj-F16.gguf"):
        served(tmp_path, *named)

    assert hub.engine.projector_path == quantized.engine.projector_path == ears


@pytest.mark.parametrize("kind", ["path", "draft_model", "adapters", "mmproj"])
def test_served_models_name_a_truncated_file(tmp_path, file, kind):
    whole = write_eyes(tmp_path / "eyes.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[:-1])
    entry = {"path": str(file), kind: {"a": str(cut)} if kind == "adapters" else str(cut)}

    with pytest.raises(SettingsError, match=r"cut\.gguf is cut short: its tensors would end at"):
        served(tmp_path, entry)


@pytest.mark.parametrize(
    ("mmproj", "sentence"),
    [
        ("none.gguf", "Cannot read the projector"),
        ("owner/none", "pull --mmproj owner/none"),
        ("tiny.gguf", "it is not a projector: its architecture is `llama`"),
    ],
)
def test_served_models_report_an_invalid_projector_in_one_sentence(
    tmp_path, file, mmproj, sentence
):
    (tmp_path / "data/models").mkdir(parents=True)
    write_llama(tmp_path / "data/models/tiny.gguf")

    with pytest.raises(SettingsError, match=re.escape(sentence)) as error:
        served(tmp_path, {"path": str(file), "mmproj": mmproj})

    assert "\n" not in str(error.value)


def test_served_models_have_unique_names(tmp_path, file):
    with pytest.raises(SettingsError, match=r"`a:b` of the model `two` is taken by `one`"):
        served(
            tmp_path,
            {"path": str(file), "id": "one", "aliases": ["a"], "personalities": {"b": "B"}},
            {"path": str(file), "id": "two", "aliases": ["a:b"]},
        )
    with pytest.raises(SettingsError, match="Two models are named `small`"):
        served(tmp_path, str(file), str(file))


def test_models_page_names_every_format_and_its_example_is_valid(tmp_path, file):
    page = (Path(__file__).parents[2] / "docs/models.md").read_text()
    example = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["models"]
    models = served(
        tmp_path,
        *(one if one == "builtin" else {**one, "path": str(file), "id": str(place)}
          for place, one in enumerate(example)),
    )  # fmt: skip

    assert all(f"`{name}`" in page for name in CHAT_FORMATS)
    assert models[1].personality == "editor"


@pytest.mark.parametrize("setting", ["moderation_model", "query_model"])
def test_moderation_and_query_models_must_be_served(tmp_path, setting):
    settings = load_settings({setting: "guard"})
    (guard,) = served(tmp_path, {"path": "builtin", "aliases": ["guard"]})
    check_named_models(settings, [guard])

    with pytest.raises(SettingsError, match="`guard` is not served"):
        check_named_models(settings, served(tmp_path, "builtin"))


def test_embedding_model_must_be_served(tmp_path):
    with pytest.raises(SettingsError, match="`minilm` is not served"):
        check_named_models(
            load_settings({"embedding_model": "minilm"}), served(tmp_path, "builtin")
        )


@pytest.mark.parametrize(
    ("given", "meant"),
    [("6 GB", 6_000_000_000), ("512 MiB", 512 << 20), ("1.5k", 1500), (7, 7), ("99", 99)],
)
def test_served_model_sizes_accept_units(tmp_path, file, given, meant):
    (model,) = served(tmp_path, {"path": str(file), "memory": given}, memory_budget=given)

    assert model.memory_bytes == meant
    with pytest.raises(SettingsError, match="a size like `6 GB`"):
        served(tmp_path, str(file), memory_budget="much")


def test_served_model_with_an_adapter_is_a_separate_model(tmp_path, file):
    adapters = {"poet": str(file), "shy": {"path": str(file), "scale": 0.5}}
    entry = {"path": str(file), "aliases": ["a"], "personalities": {"p": "P"}, "adapters": adapters}
    plain, poet, shy = served(tmp_path, entry)

    assert list(poet.names) == ["small:poet", "a:poet", "small:poet:p", "a:poet:p"]
    assert plain.engine.adapters == ()
    assert [one.scale for one in (*poet.engine.adapters, *shy.engine.adapters)] == [1, 0.5]
    assert (plain.loads_at_start, poet.loads_at_start) == (True, False)
    with pytest.raises(SettingsError, match="`small:p` of the model `small:p` is taken"):
        served(tmp_path, {**entry, "adapters": {"p": str(file)}})
    with pytest.raises(SettingsError, match="none cannot be read"):
        served(tmp_path, {**entry, "adapters": {"q": "none"}})


def test_memory_of_a_model_includes_its_projector(tmp_path):
    model = write_llama(tmp_path / "tiny.gguf")
    eyes = write_eyes(tmp_path / "eyes.gguf")
    plain, seeing = served(
        tmp_path, str(model), {"path": str(model), "id": "seeing", "mmproj": str(eyes)}
    )

    planner = ModelPlanner(None)
    with_eyes, without = (planner.plan(one, [one]).bytes for one in (seeing, plain))
    assert with_eyes - without > eyes.stat().st_size
