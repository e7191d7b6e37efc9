"""Running programs: as an Optax transform, and by an interpreter that is compiled once."""
