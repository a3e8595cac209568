"""How many requests an upstream gets at once from several processes, as if they were one."""
