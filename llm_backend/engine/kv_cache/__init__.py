"""KV cache: cells by slot, cached prefixes, and prefix files."""
