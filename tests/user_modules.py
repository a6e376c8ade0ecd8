"""Twenty-odd modules as users write them: what tests of TorchClassifier run over."""

import threading

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

N_WORDS = 12


class Recurrent(nn.Module):
    """The initial state is a tensor of its own."""

    def __init__(self, kind):
        super().__init__()
        self.cell, self.out = kind(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        start = torch.zeros(1, len(x), 6, dtype=self.out.weight.dtype)
        states, _ = self.cell(x, (start, start) if isinstance(self.cell, nn.LSTM) else start)
        return self.out(states[:, -1])


class OwnTensors(nn.Module):
    """Makes tensors in the default dtype, and indices of a table of its own."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        one_hot = F.one_hot((x[:, 0] > 0).long(), 4).float()
        return self.out(torch.cat([x @ torch.eye(4), one_hot + torch.zeros(len(x), 4)], 1))


class Words(nn.Module):
    """Averages of embeddings; takes indices, as `nn.Embedding` does."""

    def __init__(self, kind=nn.Embedding):
        super().__init__()
        self.table, self.out = kind(N_WORDS, 5), nn.Linear(5, 3)

    def forward(self, x):
        found = self.table(x)
        return self.out(found if found.ndim == 2 else found.mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))


class Keeps(nn.Module):
    """Keeps activations, in an attribute, a list and a dict; has a lambda, a lock, hooks, buffers of all kinds."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("shift", torch.full((6,), 0.1), persistent=False)
        self.lock, self.kept = threading.Lock(), {}
        self.first = lambda x: torch.relu(self.hidden(x))
        self.hidden.register_forward_hook(lambda part, inputs, output: self.kept.update(raw=[output]))

    def forward(self, x):
        self.h = self.first(x) + self.shift
        if self.training:
            self.count += 1
            self.mean = 0.9 * self.mean + 0.1 * self.h.detach().mean(0)  # another tensor each time
        return self.out(self.h - self.mean)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.out = nn.ModuleList(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(()))
        self.kernel = nn.Parameter(torch.eye(4).reshape(1, 4, 4))

    def forward(self, x):
        for layer in self.layers:
            x = x + self.scale * torch.tanh(layer(x)) @ self.kernel[0]
        return self.out(x)


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.pairs = nn.Bilinear(2, 2, 3)

    def forward(self, x):
        return self.pairs(x[:, :2], x[:, 2:])


class Attention(nn.Module):
    """No step looks ahead: a mask of minus infinities."""

    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)
        self.register_buffer("ahead", torch.full((5, 5), -torch.inf).triu(1))

    def forward(self, x):
        return self.out(self.attention(x, x, x, attn_mask=self.ahead)[0].mean(1))


class Remembers(nn.Module):
    """A buffer that grows with every batch."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.register_buffer("means", torch.zeros(1, 4))

    def forward(self, x):
        if self.training:
            self.means = torch.cat([self.means, x.mean(0, keepdim=True)])
        return self.out(x - self.means.mean(0))


def dense(*between, width=6):
    return nn.Sequential(nn.Linear(4, width), *between, nn.Linear(width, 3))


def normed(norm):
    return nn.Sequential(norm(nn.Linear(4, 6)), nn.Tanh(), nn.Linear(6, 3))


class Transformer(nn.Sequential):
    def __init__(self):
        super().__init__(nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), nn.Flatten(), nn.Linear(20, 3))


def convolution(of, pool, *parts):
    return nn.Sequential(of(1, 4, 3, padding=1), *parts, nn.ReLU(), pool(1), nn.Flatten(), nn.LazyLinear(3))


#: How to make a module, and the shape of its rows (None: words).
MODULES = {
    "gru": (lambda: Recurrent(nn.GRU), (5, 4)),
    "lstm": (lambda: Recurrent(nn.LSTM), (5, 4)),
    "embedding": (Words, None),
    "embedding_bag": (lambda: Words(nn.EmbeddingBag), None),
    "sparse_embedding": (lambda: Words(lambda *sizes: nn.Embedding(*sizes, padding_idx=0, sparse=True)), None),
    "conv1d": (lambda: convolution(nn.Conv1d, nn.AdaptiveAvgPool1d, nn.BatchNorm1d(4)), (1, 8)),
    "conv2d": (lambda: convolution(nn.Conv2d, nn.AdaptiveMaxPool2d, nn.BatchNorm2d(4)), (1, 4, 4)),
    "lazy_conv": (lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3)), (1, 4, 4)),
    "batch_norm": (lambda: dense(nn.BatchNorm1d(6), nn.ReLU()), (4,)),
    "lazy_batch_norm": (lambda: dense(nn.LazyBatchNorm1d(momentum=None), nn.ReLU()), (4,)),
    "layer_norm": (lambda: dense(nn.LayerNorm(6), nn.GELU()), (4,)),
    "group_norm": (lambda: dense(nn.GroupNorm(2, 6), nn.SiLU()), (4,)),
    "in_place": (lambda: nn.Sequential(nn.ReLU(inplace=True), dense(nn.ELU(inplace=True))), (4,)),
    "weight_norm": (lambda: normed(parametrizations.weight_norm), (4,)),
    "old_weight_norm": (lambda: normed(nn.utils.weight_norm), (4,)),
    "spectral_norm": (lambda: normed(parametrizations.spectral_norm), (4,)),
    "old_spectral_norm": (lambda: normed(nn.utils.spectral_norm), (4,)),
    "orthogonal": (lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)), nn.Linear(4, 3)), (4,)),
    "tied": (Tied, (4,)),
    "keeps": (Keeps, (4,)),
    "residual": (Residual, (4,)),
    "bilinear": (Pairs, (4,)),
    "prelu": (lambda: dense(nn.PReLU()), (4,)),
    "attention": (Attention, (5, 4)),
    "remembers": (Remembers, (4,)),
    "transformer": (Transformer, (5, 4)),
    "own_tensors": (OwnTensors, (4,)),
}
