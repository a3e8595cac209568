"""Writing of the GGUF files that tests make."""

from pathlib import Path

from gguf import GGUFWriter


def write_gguf(writer: GGUFWriter, path: Path) -> Path:
    """Writes the values and tensors that were added to the file at `path`; returns the path."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
