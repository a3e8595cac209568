"""Vector stores: files taken in, searched, and read by models."""
