"""Optimizers: one update of parameters w with gradient g and moments m, v."""

from __future__ import annotations

import math

import numpy as np

from cydrop.reference._arrays import Array

__all__ = ["adagrad", "adam", "adamw", "clip_factor", "limit_norms", "rmsprop", "sgd"]


def clip_factor(gradients: list[Array], clip_norm: float | None) -> float:
    """The factor that brings the global norm of the gradients down to clip_norm."""
    norm = math.sqrt(sum(float((np.asarray(g, dtype=np.float64) ** 2).sum()) for g in gradients))
    return 1.0 if clip_norm is None or norm <= clip_norm else clip_norm / norm


def sgd(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 0.01, momentum: float = 0.0,
    nesterov: bool = False, weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """v = momentum v + g; w -= learning_rate (g + momentum v if nesterov else v)"""
    g = g + weight_decay * w
    v = momentum * v + g
    return w - learning_rate * (g + momentum * v if nesterov else v), m, v


def rmsprop(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 1e-3, rho: float = 0.9,
    epsilon: float = 1e-8, weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """v = rho v + (1 - rho) g^2; w -= learning_rate g / (sqrt v + epsilon)"""
    g = g + weight_decay * w
    v = rho * v + (1 - rho) * g**2
    return w - learning_rate * g / (np.sqrt(v) + epsilon), m, v


def adagrad(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 0.01, epsilon: float = 1e-10,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """v = v + g^2; w -= learning_rate g / (sqrt v + epsilon)"""
    g = g + weight_decay * w
    v = v + g**2
    return w - learning_rate * g / (np.sqrt(v) + epsilon), m, v


def adam(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 1e-3, beta1: float = 0.9,
    beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Kingma and Ba (2015), algorithm 1, update number t from 1; epsilon added after the corrected root."""
    g = g + weight_decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    corrected_m, corrected_v = m / (1 - beta1**t), v / (1 - beta2**t)
    return w - learning_rate * corrected_m / (np.sqrt(corrected_v) + epsilon), m, v


def adamw(
    w: Array, g: Array, m: Array, v: Array, t: int, *, learning_rate: float = 1e-3, beta1: float = 0.9,
    beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 0.01,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """w = (1 - learning_rate weight_decay) w, then Adam (Loshchilov and Hutter 2019)."""
    w = w * (1 - learning_rate * weight_decay)
    return adam(w, g, m, v, t, learning_rate=learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon)


def limit_norms(weight: Array, max_norm: float) -> Array:
    """Max-norm: columns of a weight (inputs, units) scaled down to Euclidean norm max_norm."""
    norms = np.sqrt((weight.astype(np.float64) ** 2).sum(axis=0))
    return (weight * np.where(norms > max_norm, max_norm / np.maximum(norms, 1e-300), 1)).astype(weight.dtype)
