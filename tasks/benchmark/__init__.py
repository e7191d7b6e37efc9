"""The benchmark: candidates against tuned baselines, over a suite of tasks."""
