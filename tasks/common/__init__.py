"""Code that every engine uses, whatever it trains."""
