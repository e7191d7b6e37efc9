"""The rules of a comparison: candidates, baselines, schedules, the protocol."""
