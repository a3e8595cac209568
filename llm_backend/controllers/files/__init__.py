"""Files: uploaded, listed, downloaded and deleted."""
