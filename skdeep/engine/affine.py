"""The affine map of a layer in training, for a stack of models.

Hidden layers are ``(K, h, B)`` here, as they lie in memory (`skdeep.engine.networks`): a product takes and gives them
so, and a small step, which takes as long as its calls, needs no view of them. Batches are ``(B, d)`` where models share
them, ``(G, B, d)`` for G groups of them, or CSR.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skdeep.engine.networks import affine, weight_gradient


class Affine:
    """The map ``x -> W x + b`` of each model, with the views of its weights that the products of all steps need.

    Weights are (K, out, in), biases (K, out). Neither asks for gradients; both may change in place.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias, self._n_models = weight, bias, weight.shape[0]
        self._is_finer = bias.dtype is torch.float64 and weight.dtype is not torch.float64
        self._transposed, self._column = weight.mT, bias.unsqueeze(2)
        self._all_weights, self._all_biases = weight.flatten(0, 1), bias.reshape(-1, 1)

    def of_batch(self, X: Tensor) -> Tensor:
        """Compute the map of a batch, (K, out, B)."""
        if X.layout is torch.sparse_csr:
            return affine(X, self.weight, self.bias).mT
        if X.ndim == 3:
            n_groups = X.shape[0]  # the length of a tensor takes as long as a small product
            if n_groups == self._n_models:
                return torch.bmm(self.weight, X.mT).add_(self._column)
            weight = self.weight.view(n_groups, -1, self.weight.shape[2])
            return torch.bmm(weight, X.mT).view(*self.bias.shape, -1).add_(self._column)
        return torch.addmm(self._all_biases, self._all_weights, X.t()).view(*self.bias.shape, -1)

    def of_hidden(self, hidden: Tensor) -> Tensor:
        """Compute the map of a hidden layer (K, in, B), (K, out, B); in float64 if biases are."""
        found = torch.bmm(self.weight, hidden)
        return found + self._column if self._is_finer else found.add_(self._column)

    def weight_gradient(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """Compute the gradient in the weights, from that in the map's value, of a batch or a hidden layer's rows."""
        if rows.layout is torch.sparse_csr:
            return weight_gradient(rows, gradient.mT)
        if rows.ndim == 3:
            n_groups = rows.shape[0]
            if n_groups == self._n_models:
                return torch.bmm(gradient, rows)
            of_groups = gradient.reshape(n_groups, -1, gradient.shape[2])
            return torch.bmm(of_groups, rows).view(self.weight.shape)
        return torch.mm(gradient.flatten(0, 1), rows).view(self.weight.shape)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Compute the gradient in a hidden layer, from that in the map's value."""
        if gradient.shape[1] == 1 and gradient.dtype is self._transposed.dtype:
            return self._transposed * gradient  # the same numbers, at several times the speed of a batch of products
        return torch.bmm(self._transposed, gradient)
