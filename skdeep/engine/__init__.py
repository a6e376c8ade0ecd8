"""Networks, losses, optimizers and the mini-batch loop of a stack of models. Torch, NumPy and SciPy only."""
