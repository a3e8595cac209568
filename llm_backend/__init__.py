"""llm-backend: a self-hosted server whose program is OpenAI's own API document."""

__all__ = ["__version__"]

__version__ = "0.1.0"
