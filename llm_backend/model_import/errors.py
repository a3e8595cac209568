"""Errors of model conversion."""


class ConversionError(Exception):
    """Raised if a model cannot be converted; the message is one sentence for the terminal."""
