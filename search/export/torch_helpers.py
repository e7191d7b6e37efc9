"""The functions that an exported PyTorch module may need, as source text.

They are those of `jax_helpers.py`, for tensors of PyTorch, in an order in which a function may call
those before it.
"""

from typing import Final

HELPERS: Final[dict[str, str]] = {
    "_number": '''\
def _number(x, g):
    """Return a number as a tensor of at least 32 bits, on the gradient's device."""
    dtype = torch.promote_types(g.dtype, torch.float32)
    return torch.as_tensor(x, dtype=dtype, device=g.device)
''',
    "_total": '''\
def _total(parts):
    """Return the sum of numbers, which may be on several devices."""
    return sum(part.to(parts[0].device) for part in parts)
''',
    "_safe_divide": '''\
def _safe_divide(x, y):
    """Return x / y, and 0 where y is 0."""
    zero = y == 0
    return torch.where(zero, 0.0, x / torch.where(zero, 1.0, y))
''',
    "_interp": '''\
def _interp(x, y, a):
    """Return (1 - a) * x + a * y."""
    return (1 - a) * x + a * y
''',
    "_cube": '''\
def _cube(x):
    """Return x to the third power."""
    return x * x * x
''',
    "_cbrt": '''\
def _cbrt(x):
    """Return the cube root, with the sign of x."""
    return torch.copysign(torch.abs(x) ** (1 / 3), x)
''',
    "_exp10": '''\
def _exp10(x):
    """Return 10 to the power x."""
    return torch.exp(x * math.log(10.0))
''',
    "_sign": '''\
def _sign(x):
    """Return the sign; NaN where x is NaN."""
    return torch.where(torch.isnan(x), x, torch.sign(x))
''',
    "_invert": '''\
def _invert(x):
    """Return 0 where x is above 0, else 1."""
    return torch.where(x > 0, 0.0, 1.0).to(x.dtype)
''',
    "_floored": '''\
def _floored(x):
    """Return |x|, kept above the smallest normal float32: logarithms stay finite."""
    return torch.clamp(torch.abs(x), min=2.0**-126)
''',
    "_norm": '''\
def _norm(x):
    """Return the Euclidean norm of a tensor."""
    return torch.sqrt(torch.sum(x * x))
''',
    "_cosine_similarity": '''\
def _cosine_similarity(x, y):
    """Return the cosine of the angle between two tensors, 0 where one of them is 0."""
    norms = torch.sqrt(torch.sum(x * x)) * torch.sqrt(torch.sum(y * y))
    return _safe_divide(torch.sum(x * y), norms)
''',
    "_clip_by_global_norm": '''\
def _clip_by_global_norm(x, square_sum, limit):
    """Return x, scaled down where the norm over all tensors is above the limit."""
    norm = torch.sqrt(square_sum)
    return torch.where(norm > limit, x * _safe_divide(limit, norm), x)
''',
    "_every": '''\
def _every(x, period):
    """Return 1 where x is a multiple of the period, else 0; both are rounded."""
    period = torch.clamp(torch.round(torch.abs(period)), min=1.0)
    return (torch.remainder(torch.round(x), period) == 0).to(x.dtype)
''',
    "_row_mean": '''\
def _row_mean(x):
    """Return the mean of each row, along the last axis."""
    return torch.mean(x, dim=-1, keepdim=True) if x.ndim else x
''',
    "_column_mean": '''\
def _column_mean(x):
    """Return the mean of each column, along all axes but the last."""
    return torch.mean(x, dim=tuple(range(x.ndim - 1)), keepdim=True) if x.ndim > 1 else x
''',
    "_row_norm": '''\
def _row_norm(x):
    """Return the Euclidean norm of each row, along the last axis."""
    return torch.sqrt(torch.sum(x * x, dim=-1, keepdim=True) if x.ndim else x * x)
''',
    "_column_norm": '''\
def _column_norm(x):
    """Return the Euclidean norm of each column, along all axes but the last."""
    axes = tuple(range(x.ndim - 1))
    return torch.sqrt(torch.sum(x * x, dim=axes, keepdim=True) if axes else x * x)
''',
    "_row_max": '''\
def _row_max(x):
    """Return the largest entry of each row, along the last axis."""
    return torch.amax(x, dim=-1, keepdim=True) if x.ndim else x
''',
    "_column_max": '''\
def _column_max(x):
    """Return the largest entry of each column, along all axes but the last."""
    return torch.amax(x, dim=tuple(range(x.ndim - 1)), keepdim=True) if x.ndim > 1 else x
''',
    "_factored": '''\
def _factored(x):
    """Return the product of the means of rows and columns, over the mean; 0 where that is 0."""
    return _safe_divide(_row_mean(x) * _column_mean(x), torch.mean(x))
''',
    "_clip_by_quantile": '''\
def _clip_by_quantile(x, share):
    """Return x, clipped where |x| is above its quantile, which is found by halving intervals."""
    size = torch.abs(x)
    high = torch.amax(size)
    low = torch.zeros_like(high)
    for _ in range(24):
        middle = 0.5 * (low + high)
        covers = torch.mean((size <= middle).to(_number(0.0, x).dtype)) >= share
        low, high = torch.where(covers, low, middle), torch.where(covers, middle, high)
    return torch.clamp(x, -high, high)
''',
    "_as_matrix": '''\
def _as_matrix(x):
    """Return x as a matrix: its last axis is the columns; a vector is one row."""
    return x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
''',
    "_orthogonalize": '''\
def _orthogonalize(x, num_iterations=5):
    """Return x as a matrix with its singular values moved near 1, by Newton-Schulz steps."""
    matrix = _as_matrix(x)
    tall = matrix.shape[0] > matrix.shape[1]
    matrix = matrix.T if tall else matrix
    square = torch.sum(torch.square(matrix))
    matrix = matrix / (torch.sqrt(torch.clamp(square, min=1e-30)) + 1e-8)
    for _ in range(num_iterations):
        gram = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.775 * gram + 2.0315 * (gram @ gram)) @ matrix
    return (matrix.T if tall else matrix).reshape(x.shape)
''',
    "_polar": '''\
def _polar(x):
    """Return the polar factor of x as a matrix: all singular values are 1, zeros stay 0."""
    matrix = _orthogonalize(_as_matrix(x), 7)
    tall = matrix.shape[0] > matrix.shape[1]
    matrix = matrix.T if tall else matrix
    for _ in range(4):
        gram = matrix @ matrix.T
        matrix = 1.875 * matrix + (-1.25 * gram + 0.375 * (gram @ gram)) @ matrix
    return (matrix.T if tall else matrix).reshape(x.shape)
''',
    "_nuclear_norm": '''\
def _nuclear_norm(x):
    """Return the sum of the singular values of x as a matrix."""
    matrix = _as_matrix(x)
    return torch.sum(matrix * _polar(matrix))
''',
    "_sinkhorn": '''\
def _sinkhorn(x):
    """Return x as a matrix, its columns and rows scaled to norms near sqrt(their length)."""
    matrix = _as_matrix(x)
    for _ in range(5):
        for axis in (0, 1):
            norm = torch.sqrt(torch.sum(matrix * matrix, dim=axis, keepdim=True))
            matrix = matrix * _safe_divide(matrix.shape[axis] ** 0.5, norm)
    return matrix.reshape(x.shape)
''',
    "_global_cosine": '''\
def _global_cosine(product, left, right):
    """Return the cosine from sums over all tensors: of x * y, x * x and y * y."""
    return _safe_divide(product, torch.sqrt(left) * torch.sqrt(right))
''',
    "_kept_side": '''\
def _kept_side(side, other):
    """Return the side of a square matrix: 1 for vectors and sides too long, kept as one number."""
    return side if other > 1 and side <= 8192 else 1
''',
    "_matmul": '''\
def _matmul(x, y):
    """Return x @ y; a square matrix that is too large is one number, the mean of its diagonal."""
    if x.shape[1] != y.shape[0]:
        return x * y
    side, inner = x.shape
    if side == y.shape[1] and _kept_side(side, inner) != side:
        return (torch.sum(x * y.T) / side).reshape(1, 1)
    return x @ y.to(x.dtype)
''',
    "_pairs": '''\
def _pairs(x, of_rows):
    """Return the shape of a square matrix over the rows or columns of x."""
    rows, columns = _as_matrix(x).shape
    return 2 * (_kept_side(rows, columns) if of_rows else _kept_side(columns, rows),)
''',
    "_row_gram": '''\
def _row_gram(x):
    """Return the products of the rows of a matrix with one another."""
    return _matmul(x, x.T)
''',
    "_column_gram": '''\
def _column_gram(x):
    """Return the products of the columns of a matrix with one another."""
    return _matmul(x.T, x)
''',
    "_prepared": '''\
def _prepared(a):
    """Return a matrix in a dtype that decompositions take, and whether it is finite."""
    is_finite = torch.all(torch.isfinite(a))
    wide = a.to(torch.promote_types(a.dtype, torch.float32))
    return torch.where(is_finite, wide, torch.zeros_like(wide)), is_finite
''',
    "_inverse_root": '''\
def _inverse_root(a, p, eps):
    """Return (a + |eps|) ** (-1 / p) of a symmetric matrix; eigenvalues of 0 stay 0."""
    matrix, is_finite = _prepared(a)
    p, eps = _number(p, matrix), _number(eps, matrix)
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    shifted = torch.clamp(values, min=0.0) + torch.abs(eps)
    zero = shifted == 0
    safe = torch.where(zero, 1.0, shifted)
    root = torch.where(zero, 0.0, safe ** (-1.0 / torch.where(p == 0, 1.0, p)))
    return torch.where(is_finite, (vectors * root) @ vectors.T, math.nan).to(a.dtype)
''',
    "_eigenbasis": '''\
def _eigenbasis(a, q):
    """Return the orthonormal factor of a @ q; a basis of zeros counts as the identity."""
    matrix, a_is_finite = _prepared(a)
    basis, q_is_finite = _prepared(q)
    identity = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    start = torch.where(torch.any(basis != 0), basis, identity)
    largest = torch.amax(torch.abs(matrix))
    scaled = matrix / torch.where(largest == 0, 1.0, largest)
    found, triangle = torch.linalg.qr(scaled @ start.to(scaled.dtype))
    found = torch.where(torch.diagonal(triangle) < 0, -found, found)
    return torch.where(a_is_finite & q_is_finite, found, math.nan).to(a.dtype)
''',
    "_sketch_shape": '''\
def _sketch_shape(x):
    """Return the shape of the sketch of x: a fourth of the shorter side, the longer side."""
    shape = _as_matrix(x).shape
    return -(-min(shape) // 4), max(shape)
''',
    "_hash": '''\
def _hash(number):
    """Mix the 32 bits of numbers (the finaliser of MurmurHash3)."""
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return number ^ (number >> 16)
''',
    "_basis": '''\
def _basis(seed, size, like):
    """Return rows of a cosine transform with random signs, drawn by the seed, [size / 4, size]."""
    if size == 1:
        return like.new_ones(1, 1)
    rank = -(-size // 4)
    seed = torch.where(torch.isfinite(seed), seed, 0.0)
    key = torch.floor(torch.clamp(seed, -(2.0**30), 2.0**30)).to(torch.int64) & 0xFFFFFFFF
    place = torch.arange(size, device=like.device)
    signs = _hash((place + _hash((key + 0x9E3779B9) & 0xFFFFFFFF)) & 0xFFFFFFFF)
    lots = _hash((place + _hash((key + 0x7F4A7C15) & 0xFFFFFFFF)) & 0xFFFFFFFF)
    frequency = torch.argsort(lots, stable=True)[:rank, None]
    angle = ((frequency * (2 * place + 1)) & 0xFFFFFFFF) % (4 * size)
    wide = torch.promote_types(like.dtype, torch.float32)
    wave = torch.cos(angle.to(wide) * (math.pi / (2 * size)))
    length = torch.where(frequency == 0, _number(math.sqrt(1 / size), like), math.sqrt(2 / size))
    return (wave * length * torch.where(signs >> 31 == 0, 1.0, -1.0)).to(like.dtype)
''',
    "_sketch": '''\
def _sketch(x, seed):
    """Return the projection of the shorter side of a matrix."""
    x = x.T if x.shape[0] > x.shape[1] else x
    return _basis(seed, x.shape[0], x) @ x
''',
    "_unsketch": '''\
def _unsketch(shape, s, seed):
    """Return a projection in the shape of the matrix again."""
    found = _basis(seed, min(shape), s).T @ s
    return found.T if shape[0] > shape[1] else found
''',
    "_sketch_norm": '''\
def _sketch_norm(shape, s):
    """Return the norm of each column of a projection, spread along the shorter side."""
    norm = torch.sqrt(torch.sum(s * s, dim=0, keepdim=True))
    return torch.broadcast_to(norm.T if shape[0] > shape[1] else norm, shape)
''',
    "_remember": '''\
def _remember(history, x):
    """Return the history with a finite number put before all others."""
    number = x.to(history.dtype)
    pushed = torch.cat([number.reshape(1), history[:-1]])
    return torch.where(torch.isfinite(number), pushed, history)
''',
    "_percentile": '''\
def _percentile(history, q):
    """Return a quantile of the numbers that are not 0; 0 if there are none."""
    used = history != 0
    ordered, _ = torch.sort(torch.where(used, history, math.inf))
    count = torch.sum(used)
    last = torch.clamp(count - 1, min=0)
    position = torch.where(torch.isnan(q), 0.0, torch.clamp(q, 0.0, 1.0)) * last
    low = torch.floor(position).to(torch.int64)
    ends = [torch.where(count > 0, ordered[torch.minimum(i, last)], 0.0) for i in (low, low + 1)]
    return ends[0] + (position - low) * (ends[1] - ends[0])
''',
    "_thin": '''\
def _thin(shape, rows, columns):
    """Return the shape of a value that varies only along the rows, the columns or neither."""
    if not shape:
        return shape
    leading = shape[:-1] if rows else (1,) * (len(shape) - 1)
    return (*leading, shape[-1] if columns else 1)
''',
    "_laid_out": '''\
def _laid_out(x, group):
    """Return a view whose last axis is the outputs: (out, in, h, w) as (h, w, in, out)."""
    return x.permute(*range(2, x.ndim), 1, 0) if group["outputs_first"] and x.ndim > 1 else x
''',
}

# Parts of the optimizer that are the same for every rule, or nearly so.
STEP: Final = '''\
    @torch.no_grad()
    def step(self, closure=None):
        """Take a step.

        Args:
          closure: Function that returns the loss, and may compute gradients anew.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()'''
LEAVES: Final = '''\
    def _leaves(self):
        """Yield group, parameter, gradient and state of each tensor to move."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None or p.numel() == 0:
                    continue
                if p.grad.is_sparse or p.is_complex():
                    raise RuntimeError("gradients must be dense, and parameters real")'''
LAST: Final = """\
    linear = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    last = [weight for weight in linear if all(weight is not other for other in embeddings)][-1:]
"""
GROUPS: Final = '''\
def param_groups(model):
    """Return a model's parameters in groups: {what}, and all others."""
    tables = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    weights = [module.weight for module in model.modules() if isinstance(module, tables)]
    embeddings = list(dict.fromkeys(weights))
{last}    named = {{id(p) for p in {named}}}
    others = [p for p in model.parameters() if id(p) not in named]
    groups = [
{groups}
    ]
    return [group for group in groups if group["params"]]'''
# What torch loads has the parameters' dtype. A state with another one would lose it.
LOAD: Final = '''\
    def load_state_dict(self, state_dict):
        """Load a state, in the dtype that it was saved with."""
        super().load_state_dict(state_dict)
        saved = [key for group in state_dict["param_groups"] for key in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for key, p in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                if torch.is_tensor(value):
                    self.state[p][name] = value.to(device=p.device, copy=True)'''
