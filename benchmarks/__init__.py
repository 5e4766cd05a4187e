"""Benchmarks side by side with the peers: `./dev bench SUBJECT` prints one JSON line per case."""
