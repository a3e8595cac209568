"""Chat formats by name, for models whose file has no chat template, a wrong one, or the name of a
template of llama.cpp (Mistral's).

A format is data: the text of each role's turn, and the opening of the assistant's. A Jinja
template is generated from it, and runs in the same sandbox as a model's own.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

_PLACEHOLDER = re.compile(r"\{\{ *(text|system|bos_token|eos_token) *\}\}")


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """Chat template, and the stop strings that answers need besides the end token."""

    source: str
    stop: tuple[str, ...] = ()


def format_of_turns(
    *,
    user: str,
    assistant: str,
    opening: str,
    system: str | None = None,
    system_in_user: str = "{{ system }}\n\n{{ text }}",
    stop: tuple[str, ...] = (),
) -> ChatFormat:
    """Builds a format of these turns. Their placeholders are `{{ text }}`, the message, and
    `{{ bos_token }}` and `{{ eos_token }}`.

    Without `system` a system message is merged into the next turn of the user, in the form of
    `system_in_user`.
    """
    system_turn = _turn_template(system) if system else "{% set state.system = message.content %}"
    source = (
        "{% set state = namespace(system='') %}{% for message in messages %}"
        "{% set text = message.content %}"
        f"{{% if message.role == 'system' %}}{system_turn}"
        "{% elif message.role == 'user' %}"
        "{% if state.system %}{% set system = state.system %}{% set state.system = '' %}"
        f"{_turn_template(user.replace('{{ text }}', system_in_user))}"
        f"{{% else %}}{_turn_template(user)}{{% endif %}}"
        f"{{% elif message.role == 'assistant' %}}{_turn_template(assistant)}"
        "{% else %}{{ raise_exception('this chat format has no turns of a `' + message.role + '`')"
        " }}{% endif %}{% endfor %}"
        f"{{% if state.system %}}{{% set text = state.system %}}{_turn_template(user)}{{% endif %}}"
        f"{{% if add_generation_prompt %}}{_turn_template(opening)}{{% endif %}}"
    )
    return ChatFormat(source=source, stop=stop)


def _turn_template(turn: str) -> str:
    """Returns Jinja source that writes this turn with its exact white space."""
    pieces = _PLACEHOLDER.split(turn)  # text and names alternate
    expressions = [
        piece if index % 2 else json.dumps(piece) for index, piece in enumerate(pieces) if piece
    ]
    return "".join(f"{{{{ {one} }}}}" for one in expressions)


_LLAMA = format_of_turns(
    user="{{ bos_token }}[INST] {{ text }} [/INST]",
    system_in_user="<<SYS>>\n{{ system }}\n<</SYS>>\n\n{{ text }}",
    assistant=" {{ text }} {{ eos_token }}",
    opening="",
)

CHAT_FORMATS: Mapping[str, ChatFormat] = {
    "llama-2-chat": _LLAMA,
    "codellama-instruct": _LLAMA,
    "codellama-super-instruct": format_of_turns(
        system="Source: system\n\n {{ text }} <step> ",
        user="Source: user\n\n {{ text }} <step> ",
        assistant="Source: assistant\n\n {{ text }} <step> ",
        opening="Source: assistant\nDestination: user\n\n",
        stop=("<step>",),
    ),
    "mistral-instruct": format_of_turns(
        user="[INST] {{ text }} [/INST]", assistant=" {{ text }}{{ eos_token }}", opening=""
    ),
    "mistral-v1": format_of_turns(
        user=" [INST] {{ text }} [/INST]", assistant=" {{ text }}{{ eos_token }}", opening=""
    ),
    "mistral-v3": format_of_turns(
        user="[INST] {{ text }}[/INST]", assistant=" {{ text }}{{ eos_token }}", opening=""
    ),
    "mistral-v3-tekken": format_of_turns(
        user="[INST]{{ text }}[/INST]", assistant="{{ text }}{{ eos_token }}", opening=""
    ),
    "mistral-v7": format_of_turns(
        system="[SYSTEM_PROMPT] {{ text }}[/SYSTEM_PROMPT]",
        user="[INST] {{ text }}[/INST]",
        assistant=" {{ text }}{{ eos_token }}",
        opening="",
    ),
    "mistral-v7-tekken": format_of_turns(
        system="[SYSTEM_PROMPT]{{ text }}[/SYSTEM_PROMPT]",
        user="[INST]{{ text }}[/INST]",
        assistant="{{ text }}{{ eos_token }}",
        opening="",
    ),
    "mistrallite": format_of_turns(
        user="<|prompter|>{{ text }}{{ eos_token }}",
        assistant="<|assistant|>{{ text }}{{ eos_token }}",
        opening="<|assistant|>",
        stop=("<|prompter|>",),
    ),
    "openchat": format_of_turns(
        system="GPT4 Correct System: {{ text }}<|end_of_turn|>",
        user="GPT4 Correct User: {{ text }}<|end_of_turn|>",
        assistant="GPT4 Correct Assistant: {{ text }}<|end_of_turn|>",
        opening="GPT4 Correct Assistant:",
        stop=("<|end_of_turn|>",),
    ),
    "human-assistant": format_of_turns(
        system="{{ text }}\n\n",
        user="Human: \n{{ text }}\n\n",
        assistant="Assistant:\n{{ text }}\n\n",
        opening="Assistant:\n",
        stop=("Human:",),
    ),
    "vicuna-1.0-chat": format_of_turns(
        system="{{ text }} ",
        user="USER: {{ text }} ",
        assistant="ASSISTANT: {{ text }}{{ eos_token }}",
        opening="ASSISTANT:",
        stop=("USER:",),
    ),
    "vicuna-1.1-chat": format_of_turns(
        system="{{ text }}\n\n",
        user="USER: {{ text }}\n",
        assistant="ASSISTANT: {{ text }}{{ eos_token }}\n",
        opening="ASSISTANT:",
        stop=("USER:",),
    ),
    "vicuna-llava": format_of_turns(
        system="{{ text }}\n",
        user="USER:{{ text }}\n",
        assistant="ASSISTANT:{{ text }}{{ eos_token }}\n",
        opening="ASSISTANT:",
        stop=("USER:",),
    ),
    "chatml": format_of_turns(
        system="<|im_start|>system\n{{ text }}<|im_end|>\n",
        user="<|im_start|>user\n{{ text }}<|im_end|>\n",
        assistant="<|im_start|>assistant\n{{ text }}<|im_end|>\n",
        opening="<|im_start|>assistant\n",
        stop=("<|im_end|>",),
    ),
    "baichuan-2": format_of_turns(
        system="{{ text }}",
        user="<reserved_106>{{ text }}",
        assistant="<reserved_107>{{ text }}{{ eos_token }}",
        opening="<reserved_107>",
        stop=("<reserved_106>",),
    ),
    "wizard-coder": format_of_turns(
        system="{{ text }}\n\n",
        user="### Instruction:\n{{ text }}\n\n",
        assistant="### Response:{{ text }}{{ eos_token }}\n\n",
        opening="### Response:",
        stop=("### Instruction:",),
    ),
    "zephyr": format_of_turns(
        system="<|system|>\n{{ text }}{{ eos_token }}\n",
        user="<|user|>\n{{ text }}{{ eos_token }}\n",
        assistant="<|assistant|>\n{{ text }}{{ eos_token }}\n",
        opening="<|assistant|>\n",
        stop=("<|user|>",),
    ),
    "stablelm-zephyr": format_of_turns(
        system="<|system|>\n{{ text }}<|endoftext|>\n",
        user="<|user|>\n{{ text }}<|endoftext|>\n",
        assistant="<|assistant|>\n{{ text }}<|endoftext|>\n",
        opening="<|assistant|>\n",
        stop=("<|endoftext|>", "<|user|>"),
    ),
    "intel-neural": format_of_turns(
        system="### System:\n{{ text }}\n",
        user="### User:\n{{ text }}\n",
        assistant="### Assistant:\n{{ text }}{{ eos_token }}\n",
        opening="### Assistant:\n",
        stop=("### User:",),
    ),
    "deepseek-chat": format_of_turns(
        system="{{ text }}\n\n",
        user="User: {{ text }}\n\n",
        assistant="Assistant: {{ text }}{{ eos_token }}",
        opening="Assistant:",
        stop=("User:",),
    ),
    "deepseek-coder": format_of_turns(
        system="{{ text }}\n",
        user="### Instruction:\n{{ text }}\n",
        assistant="### Response:\n{{ text }}\n<|EOT|>\n",
        opening="### Response:\n",
        stop=("<|EOT|>", "### Instruction:"),
    ),
    "solar-instruct": format_of_turns(
        system="### System:\n{{ text }}\n\n",
        user="### User:\n{{ text }}\n\n",
        assistant="### Assistant:\n{{ text }}\n\n",
        opening="### Assistant:\n",
        stop=("### User:",),
    ),
    "gemma-instruct": format_of_turns(
        user="<start_of_turn>user\n{{ text }}<end_of_turn>\n",
        assistant="<start_of_turn>model\n{{ text }}<end_of_turn>\n",
        opening="<start_of_turn>model\n",
        stop=("<end_of_turn>",),
    ),
}
"""Formats as documented by the models' authors, by names that are common in other servers."""
