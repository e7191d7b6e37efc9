"""The trainings that a comparison needs: sweeps, their cost, their cache."""
