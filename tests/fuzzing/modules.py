"""Small modules as users write them, for `TorchClassifier`."""

import torch
from torch import nn
from torch.nn import functional as F


def linear(n_features, n_outputs):
    return nn.Linear(n_features, n_outputs)


def perceptron(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 4), nn.ReLU(), nn.Linear(4, n_outputs))


def lazy(n_outputs):
    return nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(n_outputs))


def batch_norm(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, n_outputs))


def dropout(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 4), nn.Dropout(0.3), nn.Linear(4, n_outputs))


def layer_norm(n_features, n_outputs):
    return nn.Sequential(nn.LayerNorm(n_features), nn.Linear(n_features, n_outputs))


class OwnState(nn.Module):
    """Makes tensors of its own, in torch's default dtype."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.map = nn.Linear(n_features + 2, n_outputs)

    def forward(self, x):
        return self.map(torch.cat([torch.zeros(len(x), 2), x], 1))


def frozen_part(n_features, n_outputs):
    first = nn.Linear(n_features, 3).requires_grad_(False)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(3, n_outputs))


class Scalar(nn.Module):
    """A parameter without axes."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.map, self.scale = nn.Linear(n_features, n_outputs), nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.scale * self.map(x)


class NoParameters(nn.Module):
    """Nothing to learn."""

    def __init__(self, n_outputs):
        super().__init__()
        self.n_outputs = n_outputs

    def forward(self, x):
        return x.mean(1, keepdim=True).expand(-1, self.n_outputs)


class Embedding(nn.Module):
    """Reads its columns as numbers of words."""

    def __init__(self, n_outputs):
        super().__init__()
        self.embed, self.map = nn.Embedding(10, 3), nn.Linear(3, n_outputs)

    def forward(self, x):
        return self.map(self.embed(x.long().abs() % 10).mean(1))


class Recurrent(nn.Module):
    """Reads its columns as a series."""

    def __init__(self, n_outputs):
        super().__init__()
        self.gru, self.map = nn.GRU(1, 3, batch_first=True), nn.Linear(3, n_outputs)

    def forward(self, x):
        return self.map(self.gru(x.unsqueeze(2))[0][:, -1])


class Tied(nn.Module):
    """One matrix, used twice."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.one, self.map = nn.Linear(n_features, n_features), nn.Linear(n_features, n_outputs)
        self.two = nn.Linear(n_features, n_features)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.map(self.two(torch.tanh(self.one(x))))


class Keeping(nn.Module):
    """Keeps an activation, with the graph behind it."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.first, self.map = nn.Linear(n_features, 3), nn.Linear(3, n_outputs)

    def forward(self, x):
        self.hidden = F.relu(self.first(x))
        return self.map(self.hidden)


class FloatBuffer(nn.Module):
    """Counts its batches, and subtracts a constant."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.map = nn.Linear(n_features, n_outputs)
        self.register_buffer("shift", torch.full((n_features,), 0.5))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if self.training:
            self.seen += 1
        return self.map(x - self.shift)


MODULES = {
    "linear": linear,
    "perceptron": perceptron,
    "lazy": lazy,
    "batch norm": batch_norm,
    "dropout": dropout,
    "layer norm": layer_norm,
    "own state": OwnState,
    "frozen part": frozen_part,
    "scalar": Scalar,
    "no parameters": NoParameters,
    "embedding": Embedding,
    "recurrent": Recurrent,
    "tied": Tied,
    "keeps its activations": Keeping,
    "float buffer": FloatBuffer,
}
