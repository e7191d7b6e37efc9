"""Meta-training in a run directory: config, workers, log, report."""
