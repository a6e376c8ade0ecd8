"""Which rows, in which order: data as mini-batches.

A batch too large to be gathered at once is passed over in parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.dropout import Noise
from skdeep.engine.group import Group
from skdeep.engine.networks import Network
from skdeep.engine.per_model import index_of, numbered, run_length, to_device
from skdeep.engine.rows import MAX_VALUES, DenseRows, LargeRows
from skdeep.engine.shards import AnyRows, SharedRows

#: Values of the batches that are taken at once: few enough to be still in a core's own memory when they are needed.
_AT_ONCE = 1 << 17


def copy_of(generator: np.random.Generator) -> np.random.Generator:
    """Copy a generator, in a third of the time of `copy.deepcopy`."""
    bits = type(generator.bit_generator)(0)
    bits.state = generator.bit_generator.state
    return np.random.Generator(bits)


class Batch(NamedTuple):
    """A mini-batch for all models of a stack, or for some of them.

    ``target`` is (1 or K, B, ...), ``weight`` (1 or K, B) or None, ``size`` the number of rows: B, or one number per
    model where they differ (rows beyond it have no weight), ``models`` the indices of the models it is for (None: all),
    ``seeds`` (1 or K,) what is drawn for the step, or None. Of a batch whose rows are divided among processes, it has
    this one's, at `places` (G, B) among all.
    """

    X: Tensor | LargeRows
    target: Tensor
    weight: Tensor | None
    size: int | np.ndarray
    models: np.ndarray | None
    seeds: Tensor | None = None
    places: Tensor | None = None

    @property
    def noise(self) -> Noise | None:
        """The random numbers of the step."""
        return None if self.seeds is None else Noise(self.seeds, self.places)

    def parts(self, row_size: int, whole: bool = False) -> Iterable[Batch]:
        """Cut the batch into parts of bounded size, where a row stands for `row_size` values; into one part if `whole`.

        Each part has the `size` of the whole batch, so that their data terms add up to the batch's.
        """
        most = max(1, MAX_VALUES // row_size)
        if isinstance(self.X, LargeRows):
            return [self._replace(X=self.X.gather())] if whole else self.cut(min(most, self.X.max_rows), self.size)
        if whole or self.target.shape[1] <= most or self.X.layout is torch.sparse_csr:
            return [self]
        return self.cut(most, self.size)

    def cut(self, max_rows: int, of_size: int | np.ndarray | None = None) -> Iterator[Batch]:
        """Cut the batch into batches of so many rows, or into its parts, if their size is given."""
        n_rows = self.target.shape[1]
        for start in range(0, n_rows, max_rows):
            n = min(max_rows, n_rows - start)
            rows = (
                self.X.take(slice(start, start + n)) if isinstance(self.X, LargeRows) else self.X.narrow(-2, start, n)
            )
            weight = None if self.weight is None else self.weight.narrow(1, start, n)
            yield Batch(rows, self.target.narrow(1, start, n), weight, n if of_size is None else of_size, self.models)


class Draw(NamedTuple):
    """What is drawn for an epoch: the `orders` of rows, one for all models or one for each, and `seeds` (1 or K, T)."""

    orders: list[np.ndarray]
    seeds: np.ndarray | None

    def seeds_of(self, step: int, models: np.ndarray | None, device: torch.device) -> Tensor | None:
        """Put the seeds of a step, for some of the models, on a device."""
        if self.seeds is None:
            return None
        seeds = self.seeds[:, step].copy()
        return to_device(torch.from_numpy(seeds if models is None or len(seeds) == 1 else seeds[models]), device)


class Batches:
    """The mini-batches of each epoch, for a stack of K models.

    Models that see the same rows in the same order (one shared generator) share their batches. Where each has its own
    rows, every model still sees exactly the batches it would see alone: shorter ones are filled up with rows of no
    weight, and a model whose epoch is over takes no part in the last batches.

    Of shared rows, each batch has the part of this process. Targets are codes (n,) in int64 or indicators (n, C) in
    uint8, on the device; weights are (n,) for all models, (K, n), or None. The `subset` are indices of the rows to
    train on: shared by all models, a list of each model's own, or None for all rows. Generators are one per model, for
    the order and, if it `draws`, the seeds of each batch; the same object where models share rows and order.
    """

    def __init__(
        self,
        rows: AnyRows,
        target: Tensor,
        weight: Tensor | None,
        subset: np.ndarray | list[np.ndarray] | None,
        generators: list[np.random.Generator],
        batch_size: int,
        shuffle: bool = True,
        draws: bool = False,
    ):
        self.rows = rows if rows.scratch is not None else rows.in_scratch()
        self.target, self.weight, self.subset = target, weight, subset
        self.generators, self.batch_size, self.shuffle, self.draws = generators, batch_size, shuffle, draws
        self.shared = not isinstance(subset, list) and all(g is generators[0] for g in generators)
        self._subsets = subsets = subset if isinstance(subset, list) else [subset] * len(generators)
        #: How many models in turn share their order: as many as train on each of the batches' rows.
        self.n_alike = 1
        if isinstance(rows.local, DenseRows) and not self.shared:
            self.n_alike = run_length(numbered(generators, subsets)[1])
        self.n_rows = np.array([len(rows) if s is None else len(s) for s in subsets])
        #: Batches per epoch of each model.
        self.n_batches = -(-self.n_rows // batch_size)
        self._full: Batch | None = None
        self.shard = rows.shard if isinstance(rows, SharedRows) else None
        #: Who adds up what is found for the rows of a batch.
        self.group = Group() if self.shard is None else self.shard.group
        # several small batches: their steps take as long as their calls
        n_groups = 1 if self.shared else len(generators) // self.n_alike
        n_at_once = _AT_ONCE // (n_groups * batch_size * rows.row_values) if isinstance(rows, DenseRows) else 1
        self._rows_at_once = batch_size * max(1, n_at_once)

    def select(self, models: np.ndarray) -> Batches:
        """Select the batches of some of the models."""
        subset = [self.subset[m] for m in models] if isinstance(self.subset, list) else self.subset
        generators = [self.generators[m] for m in models]
        weight = self._weight_of(models)
        form = self.batch_size, self.shuffle, self.draws
        return Batches(self.rows, self.target, weight, subset, generators, *form)

    def prepared(self, network: Network) -> Batches:
        """Make the same batches, of rows that a network has prepared: once for all, or for each group of models.

        Those of groups lie one after the other, with their targets and weights.
        """
        rows, form = self.rows, (self.generators, self.batch_size, self.shuffle, self.draws)
        n_groups = len(self._subsets) // self.n_alike
        # not where models share an order that are none in turn
        apart = not self.shared and n_groups == len(numbered(self.generators, self._subsets)[0])
        if apart and isinstance(rows, DenseRows) and (self.weight is None or self.weight.ndim == 1):
            index = [np.arange(len(rows)) if own is None else own for own in self._subsets[:: self.n_alike]]
            own = network.prepare_each(rows, index, self.n_alike)
            if own is not None:
                ends, (_, whole) = np.cumsum([len(part) for part in index]), self._placed(np.concatenate(index))
                subset = [part for part in np.split(np.arange(ends[-1]), ends[:-1]) for _ in range(self.n_alike)]
                weight = None if self.weight is None else self.weight[whole]
                return Batches(own, self.target[whole], weight, subset, *form)
        return Batches(rows.through(network.prepare), self.target, self.weight, self.subset, *form)

    def draw(self) -> Draw:
        """Draw the orders of the coming epoch, and the seeds of its steps."""
        if self._full is not None and not self.draws:
            return Draw([], None)  # nothing: one batch that is kept
        if self.shared:
            return Draw([self._order(0)], self._seeds([0]) if self.draws else None)
        first, number = numbered(self.generators, self._subsets)  # models that share both share what is drawn
        orders, seeds = [self._order(model) for model in first], self._seeds(first) if self.draws else None
        return Draw([orders[n] for n in number], None if seeds is None else seeds[number])

    def epoch(self, drawn: Draw | None = None, n_done: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, from the first one that is not done; each overwrites the rows of the last."""
        if n_done and n_done == int(self.n_batches.max()):
            return iter(())
        drawn = self.draw() if drawn is None else drawn
        n, most = int(self.n_rows.min()), int(self.n_rows.max())
        n_even = 0 if self.shard is not None else n if n == most else n // self.batch_size * self.batch_size
        return chain(
            self._even_steps(drawn, n_done, n_even),
            self._uneven_steps(drawn, max(n_done, -(-n_even // self.batch_size))),
        )

    def _even_steps(self, drawn: Draw, n_done: int, n: int) -> Iterator[Batch]:
        """Yield the batches of the first n rows of each order, of which all models have as many."""
        size, device = self.batch_size, self.target.device
        if self._full is not None:
            yield self._full._replace(seeds=drawn.seeds_of(0, None, device))
            return
        if n_done * size >= n:
            return
        rows = everything = cast("Tensor | slice", slice(0, n))
        if not self.shared:
            rows, everything = self._placed(np.stack([order[:n] for order in drawn.orders[:: self.n_alike]]))
        elif self.subset is not None or (self.shuffle and n > size):
            rows, everything = self._placed(drawn.orders[0])
        if isinstance(everything, slice):
            target = self.target[everything].unsqueeze(0)
            weight = None if self.weight is None else torch.atleast_2d(self.weight[..., everything])
        else:
            target, weight = self._judged(torch.atleast_2d(everything))
        if n <= size and n == self.n_rows.max():  # a batch of all rows has no order to draw, and stays as it is
            X = self._values(rows)
            X = X.clone() if isinstance(X, Tensor) else X  # out of the scratch memory
            self._full = Batch(X, self._as_numbers(target), weight, n, None)
            yield from self._even_steps(drawn, n_done, n)
            return
        for start in range(n_done * size, n, self._rows_at_once):
            n_rows = min(self._rows_at_once, n - start)
            part = slice(start, start + n_rows)
            X = self._values(rows[..., part] if isinstance(rows, Tensor) else part)
            of_rows = None if weight is None else weight.narrow(1, start, n_rows)
            some = Batch(X, self._as_numbers(target.narrow(1, start, n_rows)), of_rows, n_rows, None)
            batches = [some] if n_rows <= size else some.cut(size)
            if not self.draws:
                yield from batches
                continue
            for step, batch in enumerate(batches, start // size):
                yield batch._replace(seeds=drawn.seeds_of(step, None, device))

    def _uneven_steps(self, drawn: Draw, n_done: int) -> Iterator[Batch]:
        """Yield the batches of which models have different parts, or processes."""
        n_alike = len(self.generators) if self.shared else self.n_alike
        for step in range(n_done, int(self.n_batches.max())):
            start = step * self.batch_size
            sizes = np.clip(self.n_rows - start, 0, self.batch_size)
            models = np.flatnonzero(sizes)
            parts = [drawn.orders[m][start : start + sizes[m]] for m in models[::n_alike]]
            # filled up with a row of its own: no other row may touch a model
            others, places = [drawn.orders[m][:1] for m in models[::n_alike]], None
            if self.shard is not None:
                parts, others, places = self._shares(parts)
            counts = np.repeat([len(part) for part in parts], 1 if self.shared else n_alike)
            batch = self.of_index(*self._placed(_table(parts, others)), models)
            size, n = sizes[models], batch.target.shape[1]
            if counts.min() < n:
                of_model = torch.from_numpy(np.arange(n) < counts[:, None])
                mask = to_device(of_model, self.target.device, self.rows.dtype)
                batch = batch._replace(weight=mask if batch.weight is None else batch.weight * mask)
            if (size != n).any():
                batch = batch._replace(size=size)
            seeds = drawn.seeds_of(step, models, self.target.device)
            everyone = len(models) == len(self.generators)
            yield batch._replace(models=None if everyone else models, seeds=seeds, places=places)

    def _shares(self, parts: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray], Tensor | None]:
        """Keep what this process has of some batches: indices, what to fill them up with, and their places."""
        assert self.shard is not None
        places = [self.shard.own(part) for part in parts]
        other = np.array([min(self.shard.start, self.shard.n_rows - 1)])
        own = [part[there] for part, there in zip(parts, places, strict=True)]
        of_units = torch.from_numpy(_table(places, [np.zeros(1)] * len(parts))) if self.draws else None
        return own, [other] * len(parts), of_units

    def of_index(self, rows: Tensor, of_targets: Tensor, models: np.ndarray | None = None) -> Batch:
        """Take the batch of rows (G, B), for all or some models; both indices are the same, where each is used.

        Of K models, K / G in turn have the same rows.
        """
        target, weight = self._judged(of_targets, models)
        X = self._values(rows[0] if self.shared else rows)
        return Batch(X, self._as_numbers(target), weight, rows.shape[1], models)

    def _judged(self, rows: Tensor, models: np.ndarray | None = None) -> tuple[Tensor, Tensor | None]:
        """Take the targets and weights of rows (G, B), for all or some models."""
        weight = self.weight if models is None else self._weight_of(models)
        if self.n_alike > 1:
            rows = rows.unsqueeze(1).expand(-1, self.n_alike, -1).flatten(0, 1)
        if weight is not None:  # older versions of PyTorch gather by 64-bit integers only
            weight = weight[rows] if weight.ndim == 1 else weight.gather(1, rows.long().expand(len(weight), -1))
        return self.target[rows], weight

    def _order(self, model: int) -> np.ndarray:
        n, subset = int(self.n_rows[model]), self._subsets[model]
        if self.shuffle and n > self.batch_size:
            return self.rows.shuffled(subset, self.generators[model])
        return np.arange(n) if subset is None else subset

    def _seeds(self, models: list[int]) -> np.ndarray:
        """Draw the seeds of the coming epoch, (len(models), T)."""
        seeds = np.zeros((len(models), int(self.n_batches.max())), dtype=np.int64)
        for own, model in zip(seeds, models, strict=True):
            n = self.n_batches[model]
            own[:n] = self.generators[model].integers(2**63, size=n)
        return seeds

    def _weight_of(self, models: np.ndarray) -> Tensor | None:
        if self.weight is None or self.weight.ndim == 1 or len(models) == len(self.weight):
            return self.weight
        return self.weight[index_of(models, self.weight)]

    def _placed(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Put indices of rows where the rows want them, and where the targets are."""
        index = torch.from_numpy(rows)
        of_targets = to_device(index, self.target.device)
        if self.shard is not None:
            index = (index - self.shard.start).clamp_(min=0)
            return (index if self.rows.index_device.type == "cpu" else to_device(index, self.target.device)), of_targets
        return index if self.rows.index_device.type == "cpu" else of_targets, of_targets

    def _as_numbers(self, target: Tensor) -> Tensor:
        """Cast indicators to the dtype of the scores; codes are returned as they are."""
        return target if target.dtype is torch.int64 else target.to(self.rows.dtype)

    def _values(self, rows: Tensor | slice) -> Tensor | LargeRows:
        n = rows.numel() if isinstance(rows, Tensor) else len(range(*rows.indices(len(self.rows))))
        here = self.rows.local
        return here.take(rows) if n * here.row_values <= MAX_VALUES else LargeRows(here, rows)


def _table(parts: list[np.ndarray], others: list[np.ndarray]) -> np.ndarray:
    """Put lists of rows side by side, (len(parts), n), each filled up with another one."""
    table = np.empty((len(parts), max(1, *map(len, parts))), dtype=np.int64)
    for row, part, other in zip(table, parts, others, strict=True):
        row[:] = other
        row[: len(part)] = part
    return table


def sent_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches of the host, each when a CUDA device has been told to wait for it; the next one is on its way then.

    A batch is taken, and sent from pinned memory, on a stream of its own, before the step of the last one is launched;
    the stream that computes waits for it alone. torch's allocator hands pinned memory out again when it has been read.
    """
    main, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(main)  # for what the batches are made of
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    while True:
        with torch.cuda.stream(side):
            batch = next(batches, None)
            parts = [] if batch is None else _parts_of(batch)
            arrived = side.record_event()
        if waiting is not None:
            main.wait_event(waiting[1])
            yield waiting[0]
        if batch is None:
            return
        for part in parts:
            if part.device.type == "cuda":
                part.record_stream(main)  # whose kernels read it when it is gone from here
        waiting = batch, arrived


def _parts_of(batch: Batch) -> list[Tensor]:
    """List the tensors of a batch that have memory: of sparse rows, three."""
    tensors = [value for value in batch if isinstance(value, Tensor)]
    rows = [value for value in tensors if value.layout is torch.sparse_csr]
    inside = [part for value in rows for part in (value.crow_indices(), value.col_indices(), value.values())]
    return [value for value in tensors if value.layout is torch.strided] + inside
