"""Programs as stand-alone source files."""
