"""Models of this machine: model manager, model handles, chat templates, markup and media."""
