"""What is compared with what, and how: candidates, baselines, schedules, the protocol."""
