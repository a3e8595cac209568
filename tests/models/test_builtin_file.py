"""The file of the built-in model: small, complete and honest about itself."""

import gguf
import pytest

from llm_backend.builtin import BUILTIN_ID, BUILTIN_PATH
from models.builtin.chat import TEMPLATE
from models.builtin.evaluate import Asker

TEXTS = [
    "Hello, world! It's 12:30 and we'll see.",
    "  leading,  double  and trailing  ",
    "Grüße aus Köln, 日本語, émoji 🦙 and \u200b zero width",
    "def f(x):\n\treturn x ** 2  # comment\n\n\nprint(f(41))",
    '{"name": "get_weather", "arguments": {"city": "Oslo"}}',
    "3.14159 1e-5 0x1F ½ ² 1,000,000",
]


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(BUILTIN_PATH)


def field(reader: gguf.GGUFReader, name: str) -> object:
    found = reader.get_field(name)
    assert found is not None
    return found.contents()


def test_the_file_is_small():
    assert BUILTIN_PATH.stat().st_size <= 8_000_000


def test_the_model_file_has_name_license_and_description(reader: gguf.GGUFReader):
    assert BUILTIN_ID == "builtin"
    assert field(reader, "general.name") == "llm-backend builtin"
    assert field(reader, "general.license") == "MIT"
    assert "tiny demonstration model" in field(reader, "general.description")


def test_the_architecture_is_llama_with_a_context_of_2048(reader: gguf.GGUFReader):
    assert field(reader, "general.architecture") == "llama"
    assert field(reader, "llama.context_length") == 2048


def test_the_file_carries_the_template_of_the_project(reader: gguf.GGUFReader):
    assert field(reader, "tokenizer.chat_template") == TEMPLATE.read_text("utf-8")


def test_turns_end_with_the_end_token_and_nothing_is_put_in_front(reader: gguf.GGUFReader):
    tokens = field(reader, "tokenizer.ggml.tokens")

    assert tokens[field(reader, "tokenizer.ggml.eos_token_id")] == "<|im_end|>"
    assert tokens[field(reader, "tokenizer.ggml.bos_token_id")] == "<|endoftext|>"
    assert field(reader, "tokenizer.ggml.add_bos_token") is False


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_survives_the_tokenizer(asker: Asker, text: str):
    assert asker.text_of(asker.tokens_of(text)) == text


def test_every_digit_is_a_token(asker: Asker):
    assert len(asker.tokens_of("8000123456")) == 10
