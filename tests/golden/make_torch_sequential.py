"""Writes torch_sequential.npz: state dicts of PyTorch Sequentials with their outputs, for tests/test_exchange.py.

    python tests/golden/make_torch_sequential.py          (needs PyTorch; prints its version, which the file keeps)

Arrays: "torch_version"; "X", (9, 6); "CASE/output", the outputs in eval mode; "CASE/0.weight" and so on, after a few
training steps, so that running statistics and biases are not those of the beginning.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

CASES = {
    "plain": lambda: [nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)],
    "no bias": lambda: [nn.Dropout(0.2), nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False)],
    "norms": lambda: [nn.BatchNorm1d(6, eps=1e-3), nn.Linear(6, 7), nn.BatchNorm1d(7, momentum=0.3), nn.GELU(),
                      nn.Linear(7, 5), nn.LayerNorm(5, eps=1e-4), nn.ELU(0.7), nn.Linear(5, 3)],
    "activations": lambda: [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8),
                            nn.ELU(0.5), nn.Linear(8, 8), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(8, 8), nn.GELU(),
                            nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Sigmoid(),
                            nn.Linear(8, 8), nn.Softplus(), nn.Linear(8, 3)],
}  # fmt: skip


def main():
    torch.manual_seed(20261122)
    X, y = torch.randn(9, 6), torch.randn(9, 3)
    arrays = {"torch_version": np.array(torch.__version__), "X": X.numpy()}
    for case, modules in CASES.items():
        module = nn.Sequential(*modules())
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.mse_loss(module(X + torch.randn_like(X)), y).backward()
            optimizer.step()
        with torch.no_grad():
            arrays[f"{case}/output"] = module.eval()(X).numpy()
        arrays |= {f"{case}/{name}": tensor.numpy() for name, tensor in module.state_dict().items()}
    path = Path(__file__).with_name("torch_sequential.npz")
    np.savez_compressed(path, **arrays)
    print(f"PyTorch {torch.__version__}: {len(arrays)} arrays, {path.stat().st_size} bytes in {path.name}")


if __name__ == "__main__":
    main()
