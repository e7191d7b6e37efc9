"""Every architecture again: float64 NumPy, one tensor and one feature at a time, nothing fused.

Written from the formulas, in the order in which the papers and their code give them.
"""

import numpy as np

TIMESCALES = [1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000]
FRACTIONS = [0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1]


def f64(tree):
    if isinstance(tree, dict):
        return {name: f64(value) for name, value in tree.items()}
    return np.asarray(tree, np.float64)


def safe_rsqrt(x):
    return 1 / np.sqrt(np.maximum(x, 1e-9))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalized(x, eps, axes=None):
    return x / np.sqrt(eps + np.mean(x**2, axis=axes, keepdims=True))


def network(weights, x):
    """`x` [..., inputs] through the layers."""
    num_layers = len(weights) // 2
    for i in range(num_layers):
        x = x @ weights[f"w{i}"] + weights[f"b{i}"]
        x = np.maximum(x, 0) if i < num_layers - 1 else x
    return x


def linear(weights, x):
    return x @ weights["w"] + weights["b"]


def lstm(weights, x, hidden, cell):
    size = hidden.shape[-1]
    gates = linear(weights, np.concatenate([x, hidden], -1))
    i, g, f, o = (gates[..., k * size : (k + 1) * size] for k in range(4))
    cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


class Averages:
    """Momenta, mean squares and factored mean squares of one tensor."""

    def __init__(self, shape, momentum, rms=(), factored=()):
        self.shape = shape
        self.decays = momentum, rms, factored
        self.m = [np.zeros(shape) for _ in momentum]
        self.rms = [np.zeros(shape) for _ in rms]
        self.row = [0.0 for _ in factored]
        self.col = [0.0 for _ in factored]
        if len(shape) >= 2:
            # The two largest dimensions; of equal ones the later is the larger.
            self.d1, self.d0 = np.argsort(shape, kind="stable")[-2:]

    def update(self, g):
        momentum, rms, factored = self.decays
        self.m = [d * m + (1 - d) * g for m, d in zip(self.m, momentum, strict=True)]
        self.rms = [d * r + (1 - d) * g**2 for r, d in zip(self.rms, rms, strict=True)]
        for k, d in enumerate(factored):
            square = g**2 + 1e-30
            if len(self.shape) >= 2:
                row, col = square.mean(self.d0, keepdims=True), square.mean(self.d1, keepdims=True)
            else:
                row = col = square
            self.row[k] = d * self.row[k] + (1 - d) * row
            self.col[k] = d * self.col[k] + (1 - d) * col

    def factor(self, k):
        if len(self.shape) < 2:
            return safe_rsqrt(self.row[k] + 1e-9)
        row = self.row[k]
        return safe_rsqrt(row / (row.mean(self.d1, keepdims=True) + 1e-9)) * safe_rsqrt(self.col[k])


def features(kind, g, p, a):
    """All features [..., F] of one tensor, not yet normalised, in the published order."""
    eps = 1e-8 if kind == "celo2" else 1e-6
    (rms,) = a.rms
    inverse = 1 / np.sqrt(rms + eps)
    out = [g]
    if kind != "adafac":
        out.append(np.clip(g, -0.1, 0.1))
    out += [p, *a.m, rms, *(m * inverse for m in a.m), inverse]
    out += [g * a.factor(k) for k in range(3)]
    if kind != "adafac":
        out.append(g * inverse)
    if kind != "celo2" or g.ndim >= 2:
        out += [*a.row, *a.col]
        out += [1 / np.sqrt(r + 1e-8) for r in a.row]
        out += [1 / np.sqrt(c + 1e-8) for c in a.col]
        for k in range(3):
            if g.ndim >= 2:
                out.append(a.m[k] * a.factor(k))
            else:
                out.append(a.m[k] * (a.row[k] + (1e-6 if kind == "adafac" else 0)) ** -0.5)
    return np.stack([np.broadcast_to(f, g.shape) for f in out], -1)


def spatial(x):
    """The axes of the tensor, in an array that has features last."""
    return tuple(range(x.ndim - 1))


def with_constants(x, constants):
    return np.concatenate([x, np.broadcast_to(constants, (*x.shape[:-1], len(constants)))], -1)


def step(out, size=1e-3):
    return -size * out[..., 0] * np.exp(1e-3 * out[..., 1])


class Mlp:
    def __init__(self, weights, num_steps=None):
        self.weights, self.t = f64(weights), 0

    def init(self, params):
        self.a = [Averages(p.shape, (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)) for p in params]

    def update(self, grads, params, loss):
        updates = []
        time = np.tanh(self.t / np.array(TIMESCALES) - 1)
        for g, p, a in zip(grads, params, self.a, strict=True):
            a.update(g)
            x = np.stack([g, p, *a.m], -1)
            x = with_constants(normalized(x, 1e-5, spatial(x)), time)
            updates.append(step(network(self.weights, x)))
        self.t += 1
        return updates


class AdafacMlp:
    def __init__(self, weights, num_steps=None):
        self.weights, self.t = f64(weights), 0

    def init(self, params):
        def moved(start, name):
            log = np.log(1 - np.array(start)) / 10 + self.weights[name]
            return tuple(1 - np.exp(10 * log))

        decays = (
            moved((0.9, 0.99, 0.999), "momentum_decays"),
            moved((0.999,), "rms_decays"),
            moved((0.9, 0.99, 0.999), "factored_decays"),
        )
        self.a = [Averages(p.shape, *decays) for p in params]

    def update(self, grads, params, loss):
        updates = []
        time = np.tanh(self.t / np.array(TIMESCALES) - 1)
        for g, p, a in zip(grads, params, self.a, strict=True):
            a.update(g)
            x = features("adafac", g, p, a)
            x = with_constants(normalized(x, 1e-5, spatial(x)), time)
            updates.append(step(network(self.weights["mlp"], x)))
        self.t += 1
        return updates


class Losses:
    """Ten averages of the loss, and what is told of them."""

    def __init__(self, longest):
        self.d = np.exp(-1 / np.logspace(1, np.log10(longest), 10))
        self.mean, self.low, self.t = np.zeros(10), np.full(10, np.inf), 0

    def features(self, loss):
        if self.t:
            loss = min(2 * abs(np.max(self.mean / (1 - self.d**self.t))), loss)
        else:
            loss = min(2 * abs(loss), loss)
        self.t += 1
        self.mean = self.d * self.mean + (1 - self.d) * loss
        corrected = self.mean / (1 - self.d**self.t)
        self.low = np.minimum(self.low, corrected)
        if self.t <= 2:
            return np.zeros(9)
        low = self.low[:-1]
        return np.clip((corrected[:-1] - low) / np.maximum(1e-8, corrected[1:] - low) - 1, -1, 1)


def scheduled(weights, x, hidden, cell):
    mixed = np.max(np.maximum(linear(weights["mix"], x), 0), 0, keepdims=True)
    hidden, cell = lstm(weights["lstm"], linear(weights["input"], x) + mixed, hidden, cell)
    lr = linear(weights["step_size"], hidden)[:, 0]
    return linear(weights["controls"], hidden), lr, hidden, cell


class Velo:
    bank_scale = 100
    form = "consistent"

    def __init__(self, weights, num_steps):
        self.weights, self.t, self.num_steps = f64(weights), 0, num_steps

    def init(self, params):
        decays = (0.9, 0.99, 0.999), (0.999,), (0.9, 0.99, 0.999)
        self.a = [Averages(p.shape, *decays) for p in params]
        self.losses = Losses(self.num_steps)
        start = self.weights["scheduler"]["start"]
        self.hidden = np.tile(start["hidden"], (len(params), 1))
        self.cell = np.tile(start["cell"], (len(params), 1))

    def statistics(self, p, a):
        def log(v):
            return 0.5 * np.clip(np.log(1e-8 + abs(10 * v)), -5, 5)

        scale = 1 / np.sqrt(max(1e-9, np.mean(p**2)))
        m = [x * scale for x in a.m]
        if self.form == "published":
            rms = a.rms[0] * scale
            var_rms = [np.mean((rms - x.mean()) ** 2) for x in m]
        else:
            rms = a.rms[0] * scale**2
            var_rms = [np.var(rms)] * 3
        rank = sum(size > 1 for size in p.shape)
        one_hot = [float(rank == k) for k in range(5)]
        return [log(rms.mean()), *one_hot, *(log(np.var(x)) for x in m), *(log(v) for v in var_rms)]

    def controlled(self, params, loss):
        """A network and a step size for every tensor."""
        fraction = np.tanh(10 * (self.t / self.num_steps - np.array(FRACTIONS)))
        told = self.losses.features(loss)
        x = np.array(
            [
                [*fraction, *told, *self.statistics(p, a)]
                for p, a in zip(params, self.a, strict=True)
            ]
        )
        controls, lr, self.hidden, self.cell = scheduled(
            self.weights["scheduler"], x, self.hidden, self.cell
        )
        bank = self.weights["bank"]
        own = [
            {
                name: self.bank_scale * np.mean(w * row.reshape(-1, *(1,) * (w.ndim - 1)), axis=0)
                for name, w in bank.items()
            }
            for row in controls
        ]
        return own, lr

    def update(self, grads, params, loss):
        own, lr = self.controlled(params, loss)
        updates = []
        for g, p, a, weights, rate in zip(grads, params, self.a, own, lr, strict=True):
            g = np.clip(g, -1000, 1000)
            a.update(g)
            x = features("velo", g, p, a)
            out = network(weights, normalized(x, 1e-5, spatial(x)))
            updates.append(rate * np.sqrt(np.mean(p**2) + 1e-9) * step(out))
        self.t += 1
        return updates


class PublishedVelo(Velo):
    form = "published"


class Celo(Velo):
    def controlled(self, params, loss):
        fraction = np.tanh(10 * (self.t / self.num_steps - np.array(FRACTIONS)))
        # As the original: a row for every tensor, all alike.
        x = np.tile(np.concatenate([fraction, self.losses.features(loss)]), (len(params), 1))
        _, log_lr, self.hidden, self.cell = scheduled(
            self.weights["scheduler"], x, self.hidden, self.cell
        )
        return [self.weights["mlp"]] * len(params), 0.1 * np.exp(log_lr)


class Celo2:
    """The direction alone, for all tensors."""

    newton_schulz_steps = 5

    def __init__(self, weights, num_steps=None):
        self.weights = f64(weights)["mlp"]

    def init(self, params):
        decays = (0.9, 0.99, 0.999), (0.95,), (0.9, 0.99, 0.999)
        self.a = [Averages(p.shape, *decays) for p in params]

    def update(self, grads, params, loss):
        updates = []
        for g, p, a in zip(grads, params, self.a, strict=True):
            g = np.clip(g, -1000, 1000)
            a.update(g)
            x = features("celo2", g, p, a)
            axes = spatial(x)[-2:]
            weights = {**self.weights, "w0": self.weights["w0"][: x.shape[-1]]}
            out = network(weights, normalized(x, 1e-9, axes))[..., 0]
            if g.ndim >= 2:
                for index in np.ndindex(g.shape[:-2]):
                    out[index] = self.orthogonal(out[index])
            updates.append(normalized(out, 1e-9, axes))
        return updates

    def orthogonal(self, x):
        """The quintic on singular values: what the products of matrices come to."""
        if not self.newton_schulz_steps:
            return x
        u, s, vt = np.linalg.svd(x / (np.linalg.norm(x) + 1e-8), full_matrices=False)
        for _ in range(self.newton_schulz_steps):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        return u @ np.diag(s) @ vt


class Celo2Base(Celo2):
    newton_schulz_steps = 0


class RnnMlp:
    def __init__(self, weights, num_steps=None):
        self.weights, self.t = f64(weights), 0

    def init(self, params):
        decays = (0.5, 0.9, 0.99, 0.999, 0.9999)
        self.a = [Averages(p.shape, decays, decays) for p in params]
        n, start = len(params), self.weights["start"]
        self.hidden, self.cell = (np.tile(start[k], (n, 1)) for k in ("hidden", "cell"))
        self.from_mlp = [self.weights["from_mlp"]] * n
        self.from_lstm = self.weights["from_lstm"]
        self.loss_mean = self.loss_var = 0.0
        self.size = 0.01

    def update(self, grads, params, loss):
        self.t += 1
        self.loss_mean = 0.9 * self.loss_mean + 0.1 * loss
        self.loss_var = 0.9 * self.loss_var + 0.1 * (self.loss_mean - loss) ** 2
        correction = 1 / (1 - 0.9**self.t + 1e-8)

        def standardized(value):
            deviation = np.sqrt(self.loss_var * correction + 1e-8)
            return np.clip((value - self.loss_mean * correction) / deviation, -5, 5)

        bound = 10 * self.size / (1 - 0.99**self.t)
        grads = [np.clip(g, -bound, bound) for g in grads]
        size = np.sqrt(1e-8 + np.mean([np.mean(g**2) for g in grads]))
        self.size = 0.99 * self.size + 0.01 * size

        def log(v):
            return np.clip(np.log(1e-8 + abs(v)), -5, 5)

        rows = []
        for g, p, a, message in zip(grads, params, self.a, self.from_mlp, strict=True):
            a.update(g)
            m, rms = np.stack(a.m), np.stack(a.rms)
            shape = [*p.shape, 1, 1, 1, 1][:4]
            told = {
                "g_norm": log(np.linalg.norm(g)),
                "is_scalar": 1.0 if p.ndim == 0 else -1.0,
                "mean_ms_mag": log(m.mean()),
                "mean_ms_sign": np.sign(m.mean()),
                "mean_rms": log(rms.mean()),
                "mean_sign": np.sign(rms.mean()),
                "mean_v_mag": log(p.mean()),
                "mean_v_sign": np.sign(p.mean()),
                "norm_weight": log(np.linalg.norm(p)),
                **{f"shape_{k}": np.log(shape[k]) - 1 for k in range(4)},
                "train_loss_feat": standardized(loss),
                "valid_loss_feat": standardized(0.0),
                "var_ms": log(m.var()),
                "var_rms": log(rms.var()),
                "var_v": log(p.var()),
            }
            rows.append([*self.from_lstm, *message, *(told[name] for name in sorted(told))])
        self.hidden, self.cell = lstm(self.weights["lstm"], np.array(rows), self.hidden, self.cell)
        self.from_lstm = linear(self.weights["to_lstm"], self.hidden).mean(0)
        to_mlp = linear(self.weights["to_mlp"], self.hidden)

        updates, self.from_mlp = [], []
        for i, (g, p, a) in enumerate(zip(grads, params, self.a, strict=True)):
            inverse = [1 / np.sqrt(r + 1e-6) for r in a.rms]
            named = {
                "flat_g": [g],
                "flat_v": [p],
                "log_abs_v": [np.log(abs(p) + 1e-8)],
                "m": a.m,
                "rms": a.rms,
                "rms_scaled_g": [m * r for m, r in zip(a.m, inverse, strict=True)],
                "rsqrt": inverse,
            }
            x = np.stack([f for name in sorted(named) for f in named[name]], -1)
            constants = [
                *np.sin((self.t - 1) / (np.array(TIMESCALES) * np.pi)),
                np.log(len(params)) - 1,
                np.log(np.linalg.norm(p) + 1e-8),
                np.log(p.size),
                *to_mlp[i],
            ]
            out = network(
                self.weights["mlp"], with_constants(normalized(x, 1e-5, spatial(x)), constants)
            )
            updates.append(step(out))
            self.from_mlp.append(out[..., 2:].reshape(-1, out.shape[-1] - 2).mean(0))
        return updates


class Scaled:
    forgets = 0.05

    def __init__(self, weights, num_steps):
        self.weights, self.length, self.t = f64(weights), num_steps, 0

    def init(self, params):
        self.m = [np.zeros(p.shape) for p in params]
        self.v = [np.zeros(p.shape) for p in params]
        self.s, self.energy = np.zeros(len(params)), np.zeros(len(params))
        self.losses = []

    def sides(self, x):
        """The matrix, or stack of them, that a kernel of Flax's layout is; None for a vector."""
        if x.ndim == 4:
            x = x.reshape(-1, x.shape[-1])
        return x if x.ndim >= 2 and min(x.shape[-2:]) > 1 else None

    def orthogonal(self, x):
        x = self.sides(x)
        tall = x.shape[-2] > x.shape[-1]
        y = np.swapaxes(x, -2, -1) if tall else x
        y = y / (np.sqrt(np.sum(y**2, axis=(-2, -1), keepdims=True)) + 1e-8)
        for _ in range(5):
            gram = y @ np.swapaxes(y, -2, -1)
            y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram @ gram) @ y
        y = np.swapaxes(y, -2, -1) if tall else y
        mean = np.mean(y**2, axis=(-2, -1), keepdims=True)
        return y / np.sqrt(max(y.shape[-2:])) / np.sqrt(mean + 1e-8)

    def update(self, grads, params, loss):
        n = {name: 10 * value for name, value in self.weights["numbers"].items()}
        longer = np.log(self.length / 300)

        def forget(name, start):
            return np.clip(start * np.exp(n[name] + longer * n["momentum_length"]), 0.002, 0.5)

        b, b1, b2 = (
            forget(name, start)
            for name, start in [
                ("momentum", self.forgets),
                ("adam_momentum", 0.1),
                ("adam_square", 0.05),
            ]
        )
        knots = self.weights["schedule"]["knots"]
        done = self.t / (self.length - 1)
        log = np.interp(done * 8, np.arange(9), 10 * knots) + longer * n["length"]
        matrices = [self.sides(p) is not None for p in params]
        last = max((i for i, is_matrix in enumerate(matrices) if is_matrix), default=None)
        rates = []
        for i, p in enumerate(params):
            rate = log + n["vector"]
            if matrices[i]:
                long, short = sorted(self.sides(p).shape[-2:])[::-1]
                rate = log + n["last" if i == last else "matrix"]
                rate += n["longer_side"] * np.log(long / 64) + n["shorter_side"] * np.log(
                    short / 64
                )
            rates.append(0.02 * np.exp(rate))
        if "steering" in self.weights:
            self.steer(grads, params, loss, rates, matrices, b, done)
            rates = rates * np.exp(self.s)
        self.t += 1
        updates = []
        for i, (g, p) in enumerate(zip(grads, params, strict=True)):
            if matrices[i]:
                ahead = b * np.exp(n["nesterov"]) * (g - ((1 - b) * self.m[i] + b * g))
                self.m[i] = (1 - b) * self.m[i] + b * g
                direction = self.orthogonal(self.m[i] + ahead).reshape(p.shape)
                direction = direction + self.added(self.m[i] + ahead, n)
                updates.append(-rates[i] * (direction + 1e-3 * np.exp(n["decay"]) * p))
                continue
            self.m[i] = (1 - b1) * self.m[i] + b1 * g
            self.v[i] = (1 - b2) * self.v[i] + b2 * g**2
            mean = self.m[i] / (1 - (1 - b1) ** self.t)
            root = np.sqrt(self.v[i] / (1 - (1 - b2) ** self.t))
            updates.append(-rates[i] * mean / (root + 1e-8))
        return updates

    def added(self, momentum, n):
        return 0.0

    def average(self, values, decay):
        """The bias-corrected average of values."""
        weights = decay ** np.arange(len(values))[::-1]
        return np.sum(weights * values) / np.sum(weights)

    def steer(self, grads, params, loss, rates, matrices, b, done):
        self.losses.append(loss)
        slow = [self.average(self.losses[: i + 1], 0.98) for i in range(len(self.losses))]
        away = [0.0, *np.abs(np.array(self.losses[1:]) - slow[:-1])]
        fast, spread = self.average(self.losses, 0.9), self.average(away, 0.98)
        trend = np.clip((fast - slow[-1]) / max(spread, 1e-3 * abs(slow[-1])), -3, 3)
        level = np.clip(0.5 * np.log(fast / self.losses[0]), -2.5, 2.5)
        cosines = [
            np.sum(g * m) / np.sqrt(max(np.sum(g**2) * np.sum(m**2), 1e-30 * g.size**2))
            for g, m in zip(grads, self.m, strict=True)
        ]
        shared = [np.mean(cosines), trend, level, done, np.log10(self.length) - 2.5]
        net = self.weights["steering"]
        for i, (g, p) in enumerate(zip(grads, params, strict=True)):
            self.energy[i] = 0.95 * self.energy[i] + 0.05 * np.mean(g**2)
            energy = self.energy[i] / (1 - 0.95 ** (self.t + 1))
            known = max(1 - (1 - b) ** self.t, 1e-8)
            size = 1 / np.sqrt(max(self.sides(g).shape[-2:])) if matrices[i] else 1.0
            ratio = rates[i] * size / (np.sqrt(np.mean(p**2)) + 1e-8)
            row = [
                cosines[i],
                np.clip(np.mean(self.m[i] ** 2) / known**2 / (energy + 1e-30), 0, 1),
                0.2 * np.clip(np.log(ratio + 1e-12) + self.s[i], -10, 10),
                self.s[i],
                *shared,
            ]
            out = 10 * linear(net["output"], np.tanh(linear(net["hidden"], np.array(row))))[0]
            self.s[i] = np.clip(0.98 * self.s[i] + 0.1 * np.tanh(out), -3, 3)


class ScaledCarom(Scaled):
    forgets = 0.42

    def added(self, momentum, n):
        return np.exp(n["cube_root"]) * np.cbrt(momentum)
