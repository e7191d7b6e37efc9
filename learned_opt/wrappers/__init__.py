"""Wrappers around any Optax transform, for what needs the training loop and not an update rule.

    tx = veldt.wrappers.lookahead(veldt.load_rule("lion").as_optax(1e-3))

Each is a transform again. What a wrapper reads besides the gradient comes by Optax's own extra
arguments: `grad_fn=` for `sam`, `obj_fn=` for `hutchinson`. All others that `update` is given
(`value=`, ...) reach the wrapped transform. Where the loop's parameters are not those to evaluate,
`eval_params` gives these.
"""

from veldt.learned_opt.wrappers.held_weights import eval_params as eval_params
from veldt.learned_opt.wrappers.hessian_probe import hutchinson as hutchinson
from veldt.learned_opt.wrappers.predicted_weights import weight_prediction as weight_prediction
from veldt.learned_opt.wrappers.sharpness import sam as sam
from veldt.learned_opt.wrappers.sharpness import sam_alternating as sam_alternating
from veldt.learned_opt.wrappers.slow_weights import lookahead as lookahead

__all__ = [
    "eval_params",
    "hutchinson",
    "lookahead",
    "sam",
    "sam_alternating",
    "weight_prediction",
]
