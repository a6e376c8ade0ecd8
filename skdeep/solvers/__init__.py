"""Full-batch solvers of a stack of linear models: Newton, L-BFGS, least squares. Torch, NumPy and SciPy only."""
