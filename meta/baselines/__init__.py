"""Baselines: what learned schedules and hyperparameters are compared with.

| module                  | what it is                                 | cost                   |
|-------------------------|--------------------------------------------|------------------------|
| `grids`                 | constant, linear, cosine, one-cycle        | a run per schedule     |
| `refinement`            | a schedule from a run's gradient norms     | one run before         |
| `hypergradient_descent` | a rate that follows the last hypergradient | a dot product per step |
| `one_pass`              | implicit hypergradients of the update map  | one run, 2 to 3 times  |
| `forward_sharing`       | forward mode, values shared by segments    | a tangent per value    |
| `initial_rates`         | scaling rules with their published numbers | nothing                |
| `black_box`             | random search and CMA-ES                   | a run per candidate    |

`docs/reference/baselines.md` has an example.
"""
