"""The organization's operations: projects, keys, people, limits, usage; a module for each."""
