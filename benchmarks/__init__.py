"""The project's own measurements: `make bench`, or one of them by its name."""
