"""Measurements beside other servers: what builds, starts and loads them, and draws figures."""
