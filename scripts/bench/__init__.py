"""What `scripts/bench.py` measures: rows, the peers' networks, the process of one side."""
