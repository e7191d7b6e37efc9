"""The trainings that a comparison needs: sweeps, costs, cache."""
