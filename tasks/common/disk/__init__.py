"""Files: written whole, with digests, read as data."""
