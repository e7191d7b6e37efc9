"""Hypergradients: gradients of hyperparameters that enter the training loss.

| method                 | module          | source               | cost                           |
|------------------------|-----------------|----------------------|--------------------------------|
| `AlternatingDescent`   | `alternating`   | Lorraine et al. 2019 | one run, an inverse per step   |
| `Hoag`                 | `hoag`          | Pedregosa 2016       | one warm-started run           |
| `Bamm`                 | `bamm`          | Liu et al. 2023      | one run, two products per step |
| `SelfTuning`           | `self_tuning`   | MacKay et al. 2019   | one run, twice the parameters  |
| `CrossEntropy`         | `cross_entropy` | Li and Li 2024       | a run per candidate            |
| `forward_metagradient` | `forward_mode`  |                      | 1 + 2 K runs for K numbers     |

All but the last are a `HyperOptimizer` of a `BilevelProblem` (`bilevel`); `implicit` has the
gradient itself, by a Neumann series or conjugate gradients. They tune what the training loss
depends on: weight decay, weights of data, augmentation. The training loss does not depend on a
learning rate or a momentum; for those see `veldt.meta.baselines` and `veldt.meta.replay`.
Cross-entropy alone needs no derivative. `docs/reference/hypergradients.md` has an example.
"""
