"""Organization administration: projects, keys, users, limits, usage; a module for each."""
