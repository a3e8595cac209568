"""What machines of this server hold, by figures that were measured, and how bursts go.

python -m benchmarks.scale     # writes the tables and the pictures of docs/scale.md
"""
