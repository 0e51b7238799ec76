"""What bursar costs, measured: `python -m benchmarks` runs all of it, `python -m benchmarks.officer` one.

Each benchmark starts an officer of its own in a short temporary directory, prints a table and then one line of JSON, and
leaves nothing behind. The officer's work is measured in its CPU time, all its threads together, and never in wall time.
"""
