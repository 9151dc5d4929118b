"""A whole network in float64 NumPy, put together from `cydrop.reference`: the oracle of training steps.

It reads the operations of a cydrop network's plan, takes copies of its weights, and is given the masks. Noise and the
masks of weights are what the twin of the generator draws for the network's seed and step.
"""

import numpy as np

from cydrop import reference
from cydrop._run.core import core_of


class PlainNetwork:
    def __init__(self, net):
        self.plan = plan = core_of(net).plan
        self.ops, self.layers, self.optimizer, self.loss = plan.ops, net.layers, net.optimizer, net.loss
        self.parameters = {name: array.astype(np.float64) for name, array in net.parameters().items()}
        self.moments = {name: (np.zeros(p.shape), np.zeros(p.shape)) for name, p in self.parameters.items()}
        self.factors = {p.name: p.factors for p in plan.parameters}
        self.gradients = {}
        self.around = []  # what goes around blocks
        self.updates = 0
        self.buffers = {name: array.astype(np.float64) for name, array in net.buffers().items()}
        self.columns = {draw.source.column: draw for draw in plan.draws}
        self.draws = core_of(net).model.ready().draws
        self.shared = [plan.ops[draw.op].shared for draw in plan.mask_draws]  # for each mask whether all rows share it
        self.first_row = 0  # number of the first row at hand in the whole batch
        self.members, self.in_turn = plan.members, plan.in_turn  # in turn: many in predictions alone
        self.rows = 0  # to train on, where learned rates do not say so themselves
        self.statistics = None  # of shards: (operation, rows, mean, variance)

    def rate(self, source):
        return self.columns[source.column].layer.rate_at(0.0)

    def key(self, source):
        """The key of what an operation draws in this step."""
        return reference.stream_key(source.seed, source.stream, self.draws)

    def array(self, op, name):
        place = f"{op.layers[0]}.{name}"
        return self.parameters[place] if place in self.parameters else self.buffers[place]

    def forward(self, x, masks=None):
        """Raw outputs; masks given: training."""
        x = np.asarray(x, dtype=np.float64)
        drawn = None if masks is None else iter(masks)
        self.tape, rows = [], x.shape[-2]
        many = self.members and not (self.in_turn and masks is not None)
        if many:  # the rows of one member after another's; three dimensions: each has its own
            x = np.tile(x, (self.members, 1)) if x.ndim == 2 else x.reshape(-1, x.shape[2])
            if drawn is not None:
                drawn = iter(
                    [self.of_rows(mask, shared, rows) for mask, shared in zip(masks, self.shared, strict=True)]
                )
        for op in self.ops:
            x, kept = FORWARD[op.kind](self, op, x, drawn)
            self.tape.append(kept)
        if many:
            x = x.reshape(self.members, rows, -1)
            return x if masks is not None else self.together(x)
        return x

    def of_rows(self, mask, shared, rows):
        """The mask of each row of each member."""
        if shared:
            return mask if mask.ndim == 1 else np.repeat(mask, rows, axis=0)
        return mask.reshape(-1, *mask.shape[2:])

    def together(self, z):
        """The raw outputs whose link is the mean of the members' predictions."""
        if self.loss.name == "cross_entropy":
            p = np.exp(z - z.max(axis=2, keepdims=True))
            return np.log((p / p.sum(axis=2, keepdims=True)).mean(axis=0))
        if self.loss.name == "binary_cross_entropy":
            p = (1 / (1 + np.exp(-z))).mean(axis=0)
            return np.log(p / (1 - p))
        if self.loss.name == "gaussian_nll":
            mean, log_variance = np.split(z, 2, axis=2)
            variance = np.exp(log_variance).mean(axis=0) + mean.var(axis=0)
            return np.concatenate([mean.mean(axis=0), np.log(variance)], axis=1)
        if self.loss.name == "pinball":
            parts = z.reshape(*z.shape[:2], len(self.loss.quantiles), -1)
            return np.sort(parts, axis=2).mean(axis=0).reshape(z.shape[1:])
        return z.mean(axis=0)

    def backward(self, dy):
        """Fills the gradients and returns d loss / d x."""
        dy = np.asarray(dy, dtype=np.float64)
        many = self.members and not self.in_turn
        if many:
            dy = dy.reshape(-1, dy.shape[-1])
        for op, kept in zip(reversed(self.ops), reversed(self.tape), strict=True):
            dy = BACKWARD[op.kind](self, op, dy, kept)
        return dy.reshape(self.members, -1, dy.shape[1]).sum(axis=0) if many else dy

    def loss_of(self, z, y, sample_weight=None):
        """(loss, gradient)"""
        if self.members and z.ndim == 3:  # the mean of the members' losses
            targets = y if np.shape(y)[:2] == z.shape[:2] else [y] * len(z)
            found = [self.loss_of(own, target, sample_weight) for own, target in zip(z, targets, strict=True)]
            return sum(loss for loss, _ in found) / len(z), np.array([grad for _, grad in found]) / len(z)
        options = {name: value for name, value in self.loss.options().items() if name != "r_drop"}  # of one pass
        function = getattr(reference, self.loss.name)
        return function(z, y, sample_weight=sample_weight, return_grad=True, **options)

    def step(self):
        """One optimizer update from the gradients."""
        optimizer = self.optimizer
        self.updates += 1
        factor = reference.clip_factor(list(self.gradients.values()), optimizer.clip_norm)
        options = {name: value for name, value in optimizer.options().items() if name != "clip_norm"}
        update = getattr(reference, type(optimizer).__name__.lower())
        prior = self.prior()
        for name, w in self.parameters.items():
            learning_rate, gain, decay = self.factors[name]
            own = options | {
                "learning_rate": options["learning_rate"] * learning_rate,
                "weight_decay": options["weight_decay"] * decay,
            }
            # what is held is gain times the parameter that the optimizer is for
            gradient = (self.gradients[name] * factor + prior.get(name, 0.0)) * gain
            w, m, v = update(w / gain, gradient, *self.moments[name], self.updates, **own)
            self.parameters[name], self.moments[name] = w * gain, (m, v)
        for op in self.ops:
            if op.max_norm > 0:
                name = f"{op.layers[0]}.weight"
                w = self.parameters[name]
                limited = [reference.limit_norms(own, op.max_norm) for own in w.reshape(-1, *w.shape[-2:])]
                self.parameters[name] = np.reshape(limited, w.shape)

    def prior(self):
        """What learned rates add to the gradients."""
        found, offsets = {}, {parameter.offset: parameter.name for parameter in self.plan.parameters}
        for number, op in enumerate(self.ops):
            if op.kind != "concrete":
                continue
            lengthscale, precision, rows = op.prior
            own, next_weight = offsets[op.weight], offsets.get(self.plan.next_weight(number))
            weight = self.parameters[next_weight] if next_weight else 0.0
            share = self.loss.of_likelihood(self.plan.n_outputs, precision) / (rows or self.rows)
            _, *slopes = reference.concrete_prior(self.parameters[own][0], weight, op.n_out, lengthscale)
            for name, slope in zip((own, next_weight), slopes, strict=True):
                if name:
                    found[name] = found.get(name, 0.0) + share * slope
        return found

    def train(self, x, y, masks, sample_weight=None):
        """One whole training step; returns the loss before it."""
        loss, grad = self.loss_of(self.forward(x, masks), y, sample_weight)
        self.backward(grad)
        self.step()
        self.draws += 1
        return loss

    def train_in_shards(self, x, y, masks, shards, sample_weight=None):
        """A training step as `DataParallel` does it: shard after shard, with its rows of the masks, and the gradients
        added over a tree. With R-Drop a shard's rows are followed by the same again."""
        weight, copies = getattr(self.loss, "r_drop", 0.0), self.loss.copies
        losses, gradients, self.statistics = [], [], []
        for shard in range(shards):
            first, end = (len(x) * number // shards for number in (shard, shard + 1))
            if first == end:
                losses.append(0.0)
                gradients.append({name: np.zeros(w.shape) for name, w in self.parameters.items()})
                continue
            self.first_row, rows = copies * first, slice(copies * first, copies * end)
            drawn = [mask if shared else mask[rows] for mask, shared in zip(masks, self.shared, strict=True)]
            z = self.forward(np.concatenate([x[first:end]] * copies), drawn)
            weights = None if sample_weight is None else sample_weight[first:end]
            if copies == 2:
                options = {"weight": weight, "label_smoothing": self.loss.label_smoothing, "sample_weight": weights}
                half = end - first
                loss, *grads = reference.r_drop(z[:half], z[half:], y[first:end], return_grad=True, **options)
                grad = np.concatenate(grads)
            else:
                loss, grad = self.loss_of(z, y[first:end], weights)
            share = (end - first) / len(x)
            self.backward(grad * share)
            losses.append(loss * share)
            gradients.append(self.gradients)
            self.gradients = {}
        self.gradients = {name: tree([found[name] for found in gradients]) for name in self.parameters}
        self.run_statistics()
        self.step()
        self.draws += 1
        self.first_row, self.statistics = 0, None
        return tree(losses)

    def run_statistics(self):
        """The running statistics of a batch in shards: those of the shards, each counted by its rows; one row says
        nothing of the variance."""
        for op in {op.layers[0]: op for op, *_ in self.statistics}.values():
            found = [(rows, mean, variance) for other, rows, mean, variance in self.statistics if other is op]
            mean, variance = self.array(op, "running_mean"), self.array(op, "running_variance")
            counted = sum(rows for rows, *_ in found)
            mean += op.momentum * (sum(rows * own for rows, own, _ in found) / counted - mean)
            counted = sum(rows for rows, *_ in found if rows > 1)
            if counted:
                new = sum(rows * own for rows, _, own in found if rows > 1) / counted
                variance += op.momentum * (new - variance)


def tree(parts):
    """((p0 + p1) + (p2 + p3)) + ..."""
    while len(parts) > 1:
        parts = [first + second for first, second in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


# Operations: (network, op, x, masks or None for prediction) -> (y, what backward needs) ------------------------


def dense(net, op, x, drawn):
    weight, scale = net.array(op, "weight"), 1.0
    if op.connect is not None and drawn is not None:
        rate = net.rate(op.connect)
        kept = reference.keep_mask(net.key(op.connect), weight.size, rate).reshape(weight.shape)
        scale = kept / (1 - rate if rate < 1 else 1)
    z = x @ (weight * scale) + (net.array(op, "bias") if op.bias >= 0 else 0.0)
    y, kept = epilogue(net, op, z, drawn)
    return y, (x, scale, kept)


def dense_backward(net, op, dy, kept):
    x, scale, epilogue_kept = kept
    dy = epilogue_backward(net, op, dy, epilogue_kept)
    place = op.layers[0]
    net.gradients[f"{place}.weight"] = (x.T @ dy) * scale
    if op.bias >= 0:
        net.gradients[f"{place}.bias"] = dy.sum(axis=0)
    return dy @ (net.array(op, "weight") * scale).T


def options(op):
    return [op.alpha] if op.activation in ("leaky_relu", "elu") else []


def epilogue(net, op, z, drawn):
    """Activation and dropout, of a dense operation or a map."""
    y, mask = z, None
    if op.activation != "identity":
        y = getattr(reference, op.activation)(z, *options(op))
    if op.noise is not None:
        rate, mode = net.rate(op.noise), "vanilla" if op.vanilla else "inverted"
        if drawn is None:
            y = reference.dropout(y, rate, mode=mode, training=False)
        else:
            mask = np.broadcast_to(next(drawn), y.shape)
            y = reference.dropout(y, rate, mode=mode, mask=mask)
    return y, (z, mask)


def epilogue_backward(net, op, dy, kept):
    z, mask = kept
    if mask is not None:
        dy = reference.dropout_backward(dy, mask, net.rate(op.noise), "vanilla" if op.vanilla else "inverted")
    if op.activation != "identity":
        dy = getattr(reference, f"{op.activation}_backward")(dy, z, *options(op))
    return dy


def noise(net, op, x, drawn):
    if drawn is None:
        return x, None
    rate = net.rate(op.noise)
    if op.variant == "alpha":
        mask = next(drawn)
        return reference.alpha_dropout(x, rate, mask=mask), mask
    before = net.first_row * x.shape[1]
    normals = reference.normal_noise(net.key(op.noise), before + x.size)[before:].reshape(x.shape)
    return {"multiply": reference.gaussian_dropout, "add": reference.gaussian_noise}[op.variant](
        x, rate, noise=normals
    ), normals


def noise_backward(net, op, dy, kept):
    rate = net.rate(op.noise)
    return {
        "multiply": lambda: reference.gaussian_dropout(dy, rate, noise=kept),
        "add": lambda: dy,
        "alpha": lambda: reference.alpha_dropout_backward(dy, kept, rate),
    }[op.variant]()


def concrete(net, op, x, drawn):
    if drawn is None:
        return x, None
    rate, before = 1 / (1 + np.exp(-net.array(op, "logit")[0])), net.first_row * x.shape[1]
    keep = reference.concrete_keep(net.key(op.noise), before + x.size, rate)[before:].reshape(x.shape)
    return reference.concrete_dropout(x, rate, keep=keep), (x, keep, rate)


def concrete_backward(net, op, dy, kept):
    dx, slope = reference.concrete_dropout_backward(dy, *kept)
    net.gradients[f"{op.layers[0]}.logit"] = np.array([slope])
    return dx


def norm(net, op, x, drawn):
    weight, bias = net.array(op, "weight"), net.array(op, "bias")
    if op.variant == "rows":
        return reference.layer_norm(x, weight, bias, epsilon=op.epsilon), x
    assert op.variant == "batch"
    mean, variance = net.array(op, "running_mean"), net.array(op, "running_variance")
    if drawn is None:
        return (x - mean) / np.sqrt(variance + op.epsilon) * weight + bias, x
    if net.statistics is not None:
        net.statistics.append((op, len(x), x.mean(axis=0), x.var(axis=0, ddof=1) if len(x) > 1 else None))
        return reference.batch_norm(x, weight, bias, epsilon=op.epsilon), x
    mean += op.momentum * (x.mean(axis=0) - mean)
    if len(x) > 1:
        variance += op.momentum * (x.var(axis=0, ddof=1) - variance)
    return reference.batch_norm(x, weight, bias, epsilon=op.epsilon), x


def norm_backward(net, op, dy, x):
    backward = {"rows": reference.layer_norm_backward, "batch": reference.batch_norm_backward}[op.variant]
    dy, dweight, dbias = backward(dy, x, net.array(op, "weight"), epsilon=op.epsilon)
    net.gradients[f"{op.layers[0]}.weight"], net.gradients[f"{op.layers[0]}.bias"] = dweight, dbias
    return dy


def fork(net, op, x, drawn):
    net.around.append(x)
    return x, None


def fork_backward(net, op, dy, kept):
    return dy + net.around.pop()


def join(net, op, x, drawn):
    around, mask = net.around.pop(), None
    if op.noise is not None and drawn is not None:
        mask = next(drawn)
        x = reference.drop_path(x, net.rate(op.noise), mask=mask)
    return around + x, mask


def join_backward(net, op, dy, mask):
    net.around.append(dy)
    return dy if mask is None else reference.drop_path_backward(dy, mask, net.rate(op.noise))


def parametric(net, op, x, drawn):
    if op.variant == "scale":
        z = reference.scale(x, net.array(op, "weight"))
    else:
        z = reference.parametric(x, net.array(op, "alpha"), op.variant, option(op))
    y, kept = epilogue(net, op, z, drawn)
    return y, (x, kept)


def option(op):
    return op.option if op.variant in ("leaky_relu", "elu") else None


def parametric_backward(net, op, dy, kept):
    x, epilogue_kept = kept
    dy = epilogue_backward(net, op, dy, epilogue_kept)
    name = "weight" if op.variant == "scale" else "alpha"
    weight = net.array(op, name)
    if op.variant == "scale":
        dx, gradient = reference.scale_backward(dy, x, weight)
    else:
        dx, gradient = reference.parametric_backward(dy, x, weight, op.variant, option(op))
    net.gradients[f"{op.layers[0]}.{name}"] = gradient
    return dx


WORDS = {  # of the parameters, as the twins take them
    "pbld": ("frequency", "phase", "weight", "bias"),
    "plr": ("frequency", "weight", "bias"),
    "piecewise_linear": ("edges", "slope", "weight", "bias"),
}


def numbers(net, op, x, drawn):
    arrays = {word: net.array(op, word) for word in WORDS[op.variant]}
    return getattr(reference, op.variant)(x, **arrays), (x, arrays)


def numbers_backward(net, op, dy, kept):
    x, arrays = kept
    if op.variant != "plr":  # whose derivative needs to know where it is 0
        arrays = {word: array for word, array in arrays.items() if word != "bias"}
    dx, *found = getattr(reference, f"{op.variant}_backward")(dy, x, **arrays)
    words = [word for word in WORDS[op.variant] if word != "edges"]
    net.gradients |= {f"{op.layers[0]}.{word}": g for word, g in zip(words, found, strict=True)}
    return dx


def codes(net, op, x, drawn):
    cardinalities = np.diff(op.numbers[1:])
    return reference.embedding(x, net.array(op, "weight"), cardinalities), (x, cardinalities)


def codes_backward(net, op, dy, kept):
    dx, net.gradients[f"{op.layers[0]}.weight"] = reference.embedding_backward(dy, *kept)
    return dx


def fixed_masks(net, op, x, drawn):
    masks = net.array(op, "masks")
    if drawn is None:  # the rows of one member after another's
        return x * np.repeat(masks, len(x) // len(masks), axis=0), None
    taken = masks, net.draws + net.first_row
    return reference.masksembles(x, *taken), taken


def fixed_masks_backward(net, op, dy, taken):
    return reference.masksembles_backward(dy, *taken)


def of_each(net, op, name, rows):
    """A parameter of each member, for each of its rows."""
    return np.repeat(net.array(op, name), rows // net.members, axis=0)


def member_scale(net, op, x, drawn):
    word = scale_word(net, op)
    z = x * of_each(net, op, word, len(x))
    if op.bias >= 0:
        z = z + of_each(net, op, "bias", len(x))
    y, kept = epilogue(net, op, z, drawn)
    return y, (x, word, kept)


def scale_word(net, op):
    """Which of its layer's scales an operation multiplies by."""
    names = {parameter.offset: parameter.name for parameter in net.plan.parameters}
    return names[op.weight].rpartition(".")[2]


def member_scale_backward(net, op, dy, kept):
    x, word, epilogue_kept = kept
    dy = epilogue_backward(net, op, dy, epilogue_kept)
    place, by_member = op.layers[0], (net.members, -1, dy.shape[1])
    net.gradients[f"{place}.{word}"] = (dy * x).reshape(by_member).sum(axis=1)
    if op.bias >= 0:
        net.gradients[f"{place}.bias"] = dy.reshape(by_member).sum(axis=1)
    return dy * of_each(net, op, word, len(x))


def member_dense(net, op, x, drawn):
    x = x.reshape(net.members, -1, x.shape[1])
    z = x @ net.array(op, "weight")
    if op.bias >= 0:
        z = z + net.array(op, "bias")[:, None]
    y, kept = epilogue(net, op, z.reshape(-1, z.shape[2]), drawn)
    return y, (x, kept)


def member_dense_backward(net, op, dy, kept):
    x, epilogue_kept = kept
    dy = epilogue_backward(net, op, dy, epilogue_kept).reshape(net.members, -1, dy.shape[1])
    place = op.layers[0]
    net.gradients[f"{place}.weight"] = x.swapaxes(1, 2) @ dy
    if op.bias >= 0:
        net.gradients[f"{place}.bias"] = dy.sum(axis=1)
    return (dy @ net.array(op, "weight").swapaxes(1, 2)).reshape(-1, x.shape[2])


FORWARD = {
    "dense": dense,
    "map": epilogue,
    "noise": noise,
    "concrete": concrete,
    "norm": norm,
    "parametric": parametric,
    "fork": fork,
    "join": join,
    "numbers": numbers,
    "codes": codes,
    "masks": fixed_masks,
    "member_scale": member_scale,
    "member_dense": member_dense,
}
BACKWARD = {
    "dense": dense_backward,
    "map": epilogue_backward,
    "noise": noise_backward,
    "concrete": concrete_backward,
    "norm": norm_backward,
    "parametric": parametric_backward,
    "fork": fork_backward,
    "join": join_backward,
    "numbers": numbers_backward,
    "codes": codes_backward,
    "masks": fixed_masks_backward,
    "member_scale": member_scale_backward,
    "member_dense": member_dense_backward,
}
