"""Capacity of machines with this server by measured figures, and simulated bursts.

python -m benchmarks.scale     # writes the tables and the plots of docs/scale.md
"""
