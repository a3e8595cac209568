"""Permits: a concurrency limit per upstream that holds for several processes together."""
