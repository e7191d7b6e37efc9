"""From finished sweeps to scores with intervals."""
