"""Models: listed, loaded and unloaded."""
