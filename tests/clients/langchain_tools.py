"""LangChain's own ways to tools and to structured output: run with a base URL."""

import sys
from typing import Literal

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Verdict(BaseModel):
    """A verdict on whether a text is a greeting."""

    is_greeting: bool
    tone: Literal["warm", "cool"]


@tool
def get_weather(city: str) -> str:
    """Current weather of a city"""
    return f"21 degrees in {city}"


model = ChatOpenAI(base_url=sys.argv[1], api_key="none", model="builtin", temperature=0)
(call,) = model.bind_tools([get_weather]).invoke("What is the weather in Paris?").tool_calls
verdict = model.with_structured_output(Verdict).invoke("Hello!")
sys.stdout.write(f"{call['name']} {call['args']}\n{type(verdict.is_greeting).__name__}\n")
