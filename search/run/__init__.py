"""Running a search in a run directory, and what a person sees of it."""
