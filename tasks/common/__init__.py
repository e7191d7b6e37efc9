"""The ground floor: what every engine uses, whatever it trains."""
