"""Errors of model conversion."""

__all__ = ["ConversionError"]


class ConversionError(Exception):
    """Raised if a model cannot be converted; the message is one sentence for the terminal."""
