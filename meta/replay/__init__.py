"""Metagradients: the exact gradient of what training ends in, by anything that training depends on.

A training run is a long composition of steps, and its gradient by the meta-parameters needs the
state before each step, in reverse. Training is deterministic, so no state need be kept that can be
computed again: a *plan* says which to store and when to run again (`plans`), `backward` drives it,
`state_hashing` checks that what ran again is what ran before, and every gradient is examined for
whether it can be trusted (`trust`). `api.metagradient` is the whole.

REPLAY and metasmoothness: Engstrom et al. 2025, "Optimizing ML Training with Metagradient Descent"
(arXiv 2503.13751). Plans: Griewank & Walther 2000, "Algorithm 799: revolve".
"""
