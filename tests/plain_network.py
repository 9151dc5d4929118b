"""A whole network in float64 NumPy, put together from `cydrop.reference`: the oracle of training steps.

It reads the layers of a cydrop network, takes copies of its weights, and is given the masks. Noise and the masks of
weights are what the twin of the generator draws for the network's seed and step.
"""

import numpy as np

import cydrop as cd
from cydrop import reference

ACTIVATIONS = {
    cd.ReLU: (reference.relu, reference.relu_backward),
    cd.LeakyReLU: (reference.leaky_relu, reference.leaky_relu_backward),
    cd.ELU: (reference.elu, reference.elu_backward),
    cd.SELU: (reference.selu, reference.selu_backward),
    cd.GELU: (reference.gelu, reference.gelu_backward),
    cd.SiLU: (reference.silu, reference.silu_backward),
    cd.Tanh: (reference.tanh, reference.tanh_backward),
    cd.Sigmoid: (reference.sigmoid, reference.sigmoid_backward),
    cd.Softplus: (reference.softplus, reference.softplus_backward),
}


class PlainNetwork:
    def __init__(self, net):
        self.layers, self.optimizer, self.loss = net.layers, net.optimizer, net.loss
        self.parameters = {name: array.astype(np.float64) for name, array in net.parameters().items()}
        self.moments = {name: (np.zeros(p.shape), np.zeros(p.shape)) for name, p in self.parameters.items()}
        self.gradients = {}
        self.updates = 0
        self.buffers = {name: array.astype(np.float64) for name, array in net.buffers().items()}
        self.sources = {draw.place: draw.source for draw in net._plan.draws}
        self.draws = net._engine.draws

    def key(self, place):
        """The key of what a layer draws in this step."""
        return reference.stream_key(self.sources[place].seed, self.sources[place].stream, self.draws)

    def forward(self, x, masks=None):
        """Raw outputs; masks given: training."""
        x = np.asarray(x, dtype=np.float64)
        self.tape, drawn, self.weight_masks = [], iter(masks or []), {}
        for place, layer in enumerate(self.layers):
            self.tape.append(x)
            if isinstance(layer, cd.Dense):
                weight = self.parameters[f"{place}.weight"]
                if masks is not None and place in self.sources:
                    rate = layer.rate_at(0.0)
                    kept = reference.keep_mask(self.key(place), weight.size, rate).reshape(weight.shape)
                    self.weight_masks[place] = kept / (1 - rate if rate < 1 else 1)
                    weight = weight * self.weight_masks[place]
                x = x @ weight
                if layer.bias:
                    x = x + self.parameters[f"{place}.bias"]
                if layer.activation is not None:
                    self.tape[-1] = (self.tape[-1], x)
                    x = self._activate(layer.activation, x)
            elif isinstance(layer, cd.GaussianDropout | cd.GaussianNoise):
                if masks is not None:
                    noise = reference.normal_noise(self.key(place), x.size).reshape(x.shape)
                    self.tape[-1] = noise
                    function = getattr(reference, layer.kind)
                    x = function(x, layer.rate_at(0.0), noise=noise)
            elif isinstance(layer, cd.AlphaDropout):
                if masks is not None:
                    self.tape[-1] = next(drawn)
                    x = reference.alpha_dropout(x, layer.rate_at(0.0), mask=self.tape[-1])
            elif isinstance(layer, cd.LayerNorm | cd.BatchNorm):
                x = self._normalise(place, layer, x, masks is not None)
            elif isinstance(layer, cd.Dropout):
                rate = layer.rate_at(0.0)
                if masks is None:
                    x = reference.dropout(x, rate, mode=layer.mode, training=False)
                else:
                    mask = np.broadcast_to(next(drawn), x.shape)
                    self.tape[-1] = mask
                    x = reference.dropout(x, rate, mode=layer.mode, mask=mask)
            else:
                x = self._activate(layer, x)
        return x

    def _normalise(self, place, layer, x, training):
        weight, bias = self.parameters[f"{place}.weight"], self.parameters[f"{place}.bias"]
        if isinstance(layer, cd.LayerNorm):
            return reference.layer_norm(x, weight, bias, epsilon=layer.epsilon)
        mean, variance = f"{place}.running_mean", f"{place}.running_variance"
        if not training:
            normal = (x - self.buffers[mean]) / np.sqrt(self.buffers[variance] + layer.epsilon)
            return normal * weight + bias
        self.buffers[mean] += layer.momentum * (x.mean(axis=0) - self.buffers[mean])
        if len(x) > 1:
            self.buffers[variance] += layer.momentum * (x.var(axis=0, ddof=1) - self.buffers[variance])
        return reference.batch_norm(x, weight, bias, epsilon=layer.epsilon)

    @staticmethod
    def _options(layer):
        return [layer.alpha] if isinstance(layer, cd.LeakyReLU | cd.ELU) else []

    def _activate(self, layer, x):
        return ACTIVATIONS[type(layer)][0](x, *self._options(layer))

    def _activate_backward(self, layer, g, x):
        return ACTIVATIONS[type(layer)][1](g, x, *self._options(layer))

    def backward(self, g):
        """Fills the gradients and returns d loss / d x."""
        g = np.asarray(g, dtype=np.float64)
        for place, layer in reversed(list(enumerate(self.layers))):
            kept = self.tape[place]
            if isinstance(layer, cd.Dense):
                if layer.activation is not None:
                    kept, z = kept
                    g = self._activate_backward(layer.activation, g, z)
                scale = self.weight_masks.get(place, 1.0)
                self.gradients[f"{place}.weight"] = (kept.T @ g) * scale
                if layer.bias:
                    self.gradients[f"{place}.bias"] = g.sum(axis=0)
                g = g @ (self.parameters[f"{place}.weight"] * scale).T
            elif isinstance(layer, cd.GaussianDropout):
                g = reference.gaussian_dropout(g, layer.rate_at(0.0), noise=kept)
            elif isinstance(layer, cd.GaussianNoise):
                pass
            elif isinstance(layer, cd.AlphaDropout):
                g = reference.alpha_dropout_backward(g, kept, layer.rate_at(0.0))
            elif isinstance(layer, cd.LayerNorm | cd.BatchNorm):
                backward = getattr(reference, f"{layer.kind}_backward")
                g, dweight, dbias = backward(g, kept, self.parameters[f"{place}.weight"], epsilon=layer.epsilon)
                self.gradients[f"{place}.weight"], self.gradients[f"{place}.bias"] = dweight, dbias
            elif isinstance(layer, cd.Dropout):
                g = reference.dropout_backward(g, kept, layer.rate_at(0.0), layer.mode)
            else:
                g = self._activate_backward(layer, g, kept)
        return g

    def loss_of(self, z, y, sample_weight=None):
        """(loss, gradient)"""
        options = {
            "cross_entropy": {"label_smoothing": getattr(self.loss, "label_smoothing", 0.0)},
            "huber": {"delta": getattr(self.loss, "delta", 1.0)},
        }.get(self.loss.name, {})
        function = getattr(reference, self.loss.name)
        return function(z, y, sample_weight=sample_weight, return_grad=True, **options)

    def step(self):
        """One optimizer update from the gradients."""
        optimizer = self.optimizer
        self.updates += 1
        factor = reference.clip_factor(list(self.gradients.values()), optimizer.clip_norm)
        names = {"SGD": ["momentum", "nesterov"], "RMSprop": ["rho", "epsilon"], "Adagrad": ["epsilon"]}
        used = names.get(type(optimizer).__name__, ["beta1", "beta2", "epsilon"])
        options = {name: getattr(optimizer, name) for name in [*used, "weight_decay"]}
        update = getattr(reference, type(optimizer).__name__.lower())
        for name, w in self.parameters.items():
            w, m, v = update(
                w, self.gradients[name] * factor, *self.moments[name], self.updates,
                learning_rate=optimizer.learning_rate, **options,
            )  # fmt: skip
            self.parameters[name], self.moments[name] = w, (m, v)
        for place, layer in enumerate(self.layers):
            if isinstance(layer, cd.Dense) and layer.max_norm is not None:
                self.parameters[f"{place}.weight"] = reference.limit_norms(
                    self.parameters[f"{place}.weight"], layer.max_norm
                )

    def train(self, x, y, masks, sample_weight=None):
        """One whole training step; returns the loss before it."""
        loss, slope = self.loss_of(self.forward(x, masks), y, sample_weight)
        self.backward(slope)
        self.step()
        self.draws += 1
        return loss
