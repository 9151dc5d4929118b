"""A whole network in float64 NumPy, put together from `cydrop.reference`: the oracle of training steps.

It reads the layers of a cydrop network, takes copies of its weights, and is given the masks.
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

    def forward(self, x, masks=None):
        """Raw outputs; masks given: training."""
        x = np.asarray(x, dtype=np.float64)
        self.tape, drawn = [], iter(masks or [])
        for place, layer in enumerate(self.layers):
            self.tape.append(x)
            if isinstance(layer, cd.Dense):
                x = x @ self.parameters[f"{place}.weight"]
                if layer.bias:
                    x = x + self.parameters[f"{place}.bias"]
                if layer.activation is not None:
                    self.tape[-1] = (self.tape[-1], x)
                    x = self._activate(layer.activation, x)
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
                self.gradients[f"{place}.weight"] = kept.T @ g
                if layer.bias:
                    self.gradients[f"{place}.bias"] = g.sum(axis=0)
                g = g @ self.parameters[f"{place}.weight"].T
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
        return loss
