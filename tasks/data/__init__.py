"""Data sets: embedded, found on disk, or the user's own arrays."""
