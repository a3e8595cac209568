"""What goes wrong with model files."""

__all__ = ["ConversionError"]


class ConversionError(Exception):
    """The model cannot be converted; the message is one sentence for the person at the terminal."""
