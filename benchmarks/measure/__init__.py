"""What `benchmarks/run.py` measures: a file per question, each run in a process of its own."""
