"""What a search keeps in its run directory."""
