"""llm-backend: a self-hosted server that implements OpenAI's own API document."""

__all__ = ["__version__"]

__version__ = "0.1.0"
