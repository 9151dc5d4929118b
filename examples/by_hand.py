"""Dropout by hand: a network of three dense layers, its backward pass and its descent written out.

    python by_hand.py
    python by_hand.py --epochs 200

Nothing here is hidden in a class: the functions of `cydrop.functional` take arrays and return arrays, and
each forward function has its backward one. The network is

    x  --dropout, dense, relu-->  h1  --dropout, dense, relu-->  h2  --dropout, dense-->  logits

and it is trained on the digits in both spellings of dropout, with rate p, the probability to drop:

    "vanilla"   training: y = x * mask              prediction: y = x * (1 - p)   (Srivastava et al. 2014)
    "inverted"  training: y = x * mask / (1 - p)    prediction: y = x

Both make the expected input of the next layer the same in training and in prediction. Inverted dropout does
the scaling in training, so prediction is a plain network: this is what everybody uses today.
"""

import argparse
import itertools

import numpy as np

from cydrop.datasets import load_optdigits
from cydrop.functional import (
    cross_entropy,
    dense,
    dense_backward,
    dropout,
    dropout_backward,
    relu,
    relu_backward,
)

RATES = 0.1, 0.5, 0.5  # of the pixels and of the two hidden layers
SIZES = 64, 256, 256, 10
BATCH_SIZE, LEARNING_RATE = 64, 0.1
TOLERANCE = 1e-5

Arrays = list[np.ndarray]


def initial_parameters(rng: np.random.Generator) -> Arrays:
    """w1, b1, w2, b2, w3, b3. Normal weights of variance 2 / inputs (He et al. 2015) keep the size of a
    signal that goes through relu; biases begin at zero."""
    parameters: Arrays = []
    for n_in, n_out in itertools.pairwise(SIZES):
        weight = rng.normal(0.0, np.sqrt(2.0 / n_in), size=(n_in, n_out)).astype(np.float32)
        parameters += [weight, np.zeros(n_out, dtype=np.float32)]
    return parameters


def training_forward(parameters: Arrays, x: np.ndarray, masks: Arrays, mode: str) -> tuple[np.ndarray, Arrays]:
    """The logits, and what the backward pass will need of the way there."""
    w1, b1, w2, b2, w3, b3 = parameters
    d0 = dropout(x, RATES[0], mode=mode, mask=masks[0])  # biases are never dropped, only what units say
    h1 = relu(dense(d0, w1, b1))
    d1 = dropout(h1, RATES[1], mode=mode, mask=masks[1])
    h2 = relu(dense(d1, w2, b2))
    d2 = dropout(h2, RATES[2], mode=mode, mask=masks[2])
    return dense(d2, w3, b3), [d0, h1, d1, h2, d2]


def backward(parameters: Arrays, way: Arrays, masks: Arrays, mode: str, grad: np.ndarray) -> Arrays:
    """The chain rule, from the last line of `training_forward` to its first. A dropped unit said nothing,
    so it gets no gradient; a kept one gets its gradient through the same factor as its signal."""
    w1, _, w2, _, w3, _ = parameters
    d0, h1, d1, h2, d2 = way
    grad, dw3, db3 = dense_backward(grad, d2, w3)
    grad = dropout_backward(grad, masks[2], RATES[2], mode)
    grad = relu_backward(grad, h2)  # where relu's output is zero it was flat
    grad, dw2, db2 = dense_backward(grad, d1, w2)
    grad = dropout_backward(grad, masks[1], RATES[1], mode)
    grad = relu_backward(grad, h1)
    _, dw1, db1 = dense_backward(grad, d0, w1)  # the gradient of the pixels is of no use here
    return [dw1, db1, dw2, db2, dw3, db3]


def predict(parameters: Arrays, x: np.ndarray, mode: str) -> np.ndarray:
    """The logits of the whole network, nothing dropped: training=False scales in "vanilla" mode only."""
    w1, b1, w2, b2, w3, b3 = parameters
    h1 = relu(dense(dropout(x, RATES[0], mode=mode, training=False), w1, b1))
    h2 = relu(dense(dropout(h1, RATES[1], mode=mode, training=False), w2, b2))
    return dense(dropout(h2, RATES[2], mode=mode, training=False), w3, b3)


def draw_masks(rng: np.random.Generator, rows: int) -> Arrays:
    """True keeps. A fresh mask for each image, in each step: every image sees its own thinned network.
    (`dropout` draws by itself if no mask is given; drawn first, they can be used twice, as at the end.)"""
    return [rng.random((rows, n)) >= rate for n, rate in zip(SIZES, RATES, strict=False)]


def train(mode: str, epochs: int) -> Arrays:
    """Stochastic gradient descent. Both spellings begin with the same weights and see the same masks."""
    X, y, X_test, y_test = load_optdigits()
    rng = np.random.default_rng(0)
    parameters = initial_parameters(rng)
    print(f"\n{mode} dropout\nepoch  training loss  test accuracy")
    for epoch in range(1, epochs + 1):
        total = 0.0
        order = rng.permutation(len(X))
        for start in range(0, len(X), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            masks = draw_masks(rng, len(batch))
            logits, way = training_forward(parameters, X[batch], masks, mode)
            loss, grad = cross_entropy(logits, y[batch], return_grad=True)
            gradients = backward(parameters, way, masks, mode, grad)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= LEARNING_RATE * gradient
            total += loss * len(batch)
        if epoch % 20 == 0 or epoch in (1, epochs):
            accuracy = np.mean(predict(parameters, X_test, mode).argmax(axis=1) == y_test)
            print(f"{epoch:5d}  {total / len(X):13.4f}  {accuracy:13.4f}")
    return parameters


def show_agreement(inverted: Arrays) -> None:
    """Both spellings are one network. Inverted dropout divides what it keeps by 1 - p, vanilla dropout does
    not; but a dense layer is linear, and dividing the weights that come next does the same. So the vanilla
    network with weights w / (1 - p) has the outputs of the inverted network with weights w: in training
    with the same masks, and in prediction, where its factor 1 - p meets the divided weights.

    Why then did the losses above differ? Both began with the same w, which are different networks; and
    descent moves them at different speeds: the gradient of w / (1 - p) is 1 - p times that of w, so that
    only a learning rate of LEARNING_RATE / (1 - p)^2 for the weights would keep the two together."""
    vanilla = [array.copy() for array in inverted]
    for weight, rate in zip(vanilla[::2], RATES, strict=True):
        weight /= np.float32(1.0 - rate)
    X = load_optdigits()[2][:500]
    masks = draw_masks(np.random.default_rng(1), len(X))
    a, _ = training_forward(inverted, X, masks, "inverted")
    b, _ = training_forward(vanilla, X, masks, "vanilla")
    in_training = np.abs(a - b).max() / np.abs(a).max()
    a, b = predict(inverted, X, "inverted"), predict(vanilla, X, "vanilla")
    in_prediction = np.abs(a - b).max() / np.abs(a).max()
    print("\nthe same network in both spellings, vanilla weights = inverted weights / (1 - p):")
    print(f"largest relative difference of logits: training {in_training:.1e}, prediction {in_prediction:.1e}")
    if max(in_training, in_prediction) > TOLERANCE:
        raise SystemExit(f"the spellings disagree by more than {TOLERANCE:g}")
    print(f"they agree within {TOLERANCE:g}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A network with dropout, trained by hand.")
    parser.add_argument("--epochs", type=int, default=100, metavar="N", help="passes over the images, default 100")
    epochs = parser.parse_args().epochs
    inverted = train("inverted", epochs)
    train("vanilla", epochs)
    show_agreement(inverted)


if __name__ == "__main__":
    main()
