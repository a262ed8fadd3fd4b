"""Batches of a loader that can only be read from its beginning, such as one of an IterableDataset.

Its data workers may each give all samples, or share them unevenly. So an epoch ends where the data
ends, or after as many samples as ``__len__`` says: they are counted on the way.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, get_worker_info

from mtf.errors import MtfError
from mtf.trainer.compute.digests import digest_of
from mtf.trainer.compute.rng import TemporarilySeeded, seed_at, seed_cpu
from mtf.trainer.compute.tensor_bits import kind_of
from mtf.trainer.data.kept_state import changed_attributes, kept_state
from mtf.trainer.data.own_generators import OwnGenerators
from mtf.trainer.data.sample_counts import count_samples
from mtf.trainer.data.user_parts import epoch_setters, is_users
from mtf.trainer.data.worker_errors import WorkerInit
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.process_end import starting_data_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HEAD = 8  # first samples of a worker that are compared with those of the others
_DIVIDE = "divide them in __iter__ by torch.utils.data.get_worker_info()"
_MAX_DEPTH = 4  # of objects in an item
_END = object()


class ReplayedBatches:
    """Batches of a non-seekable loader, such as one of an IterableDataset.

    The generators are seeded at the start of the epoch, and a resume makes the earlier batches
    again. The order depends on which worker makes which sample, so a resume needs the same number
    of workers. Each epoch starts new workers: persistent ones would go on with the generator
    states of the epoch before.

    Args:
        loader: the loader.
        seed: the training's seed.
        name: of the data; separates its random numbers from those of other data.
        rank: the rank of this process.
        is_bounded: whether an epoch has as many batches as ``__len__`` says, since all ranks must
            have equally many; otherwise it has as many as the samples make.

    Attributes:
        fixed: settings that a resume may not change, from configuration key to value.
    """

    def __init__(
        self, loader: DataLoader[Any], seed: int, name: str, rank: int, *, is_bounded: bool
    ) -> None:
        self.fixed = {"data.num_workers": loader.num_workers}
        self.is_bounded = is_bounded
        self._given = loader
        self._seed, self._name, self._rank = seed, name, rank
        # a class of the user's own may change the batches, and would not know ours
        self._is_plain = type(loader).__iter__ is DataLoader.__iter__
        self._is_stream = self._is_plain and isinstance(loader.dataset, IterableDataset)
        parts = (loader.dataset, loader.batch_sampler, loader.sampler)
        self._setters = epoch_setters(parts)
        functions = (loader.collate_fn, loader.generator)
        self._own = OwnGenerators(*parts, *functions, reported=rank == 0)
        is_pipe = isinstance(loader.dataset, IterDataPipe)  # torch looks into these by itself
        self._may_repeat = self._is_stream and loader.num_workers > 1 and not is_pipe
        self._stream: Any = loader.dataset
        if self._may_repeat:
            self._stream = _WorkerStream(loader.dataset, rank)
        self._loader = self._prepared(self._stream)
        self._samples: dict[int, int | None] = {}  # of the newest batch, and of those made ahead
        self._newest = 0
        self._is_checked = False

    def _prepared(self, dataset: Any) -> DataLoader[Any]:
        given, loader = self._given, copy.copy(self._given)
        changed: dict[str, Any] = {
            "persistent_workers": False,
            "worker_init_fn": WorkerInit(given.worker_init_fn),
            "dataset": dataset,
            "_IterableDataset_len_called": None,  # torch would warn of what is counted here
        }
        if self._is_plain:
            is_batched = given.batch_sampler is not None
            changed["collate_fn"] = _CountingCollate(given.collate_fn, is_batched=is_batched)
        vars(loader).update(changed)
        return loader

    def __len__(self) -> int:
        """Return the number of batches in an epoch, if the workers share its samples evenly."""
        given = self._given
        size, workers = given.batch_size, given.num_workers
        if not self._is_stream or size is None or workers < 2:
            return len(given)
        if self.is_bounded and not given.drop_last:  # no division makes fewer
            return len(given)
        samples = self._said()
        shares = [(samples - worker + workers - 1) // workers for worker in range(workers)]
        return max(1, sum(n // size if given.drop_last else -(-n // size) for n in shares))

    @property
    def least_batches(self) -> int:
        """Return the number of batches that an epoch has however its samples are divided."""
        given = self._given
        if not (self._is_stream and given.drop_last and given.num_workers > 1):
            return len(given)
        size = given.batch_size or 1
        samples = self._said()
        return max(0, (samples - given.num_workers * (size - 1)) // size)

    @property
    def may_give_more(self) -> bool:
        """Return True if it is not known yet whether an epoch gives more batches than it has."""
        return not self._is_checked

    def num_batches(self, epoch: int) -> int | None:
        """Return the number of batches in an epoch, None if only its end tells it."""
        self._set_epoch(epoch)
        return len(self) if self.is_bounded else None

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the loader's batches after the first ``start``."""
        self._set_epoch(epoch)
        kept = self._kept()
        given: Counter[int] = Counter()
        number, said, self._samples = 0, self._said(), {}
        opened = self._opened(epoch)
        for batch in opened:
            given[batch.worker] += batch.items
            number += 1
            if number > start:
                self._samples[number - 1] = batch.samples
                self._newest = number - 1
                yield batch.content
            if given.total() >= said:
                break
        self._report_kept(kept)
        goes_on = not self._is_checked and next(opened, None) is not None
        self._check(epoch, given, number, goes_on=goes_on)

    def _kept(self) -> dict[str, object]:
        """Return the state that the data keeps between epochs in this process.

        Data workers begin each epoch with the data as it was built. It is asked for in the first
        epoch only, and not of data sets of libraries.
        """
        data = self._given.dataset
        is_asked = self._is_stream and not (self._given.num_workers or self._is_checked)
        return kept_state(data) if is_asked and is_users(type(data).__module__) else {}

    def _report_kept(self, before: dict[str, object]) -> None:
        if changed := before and changed_attributes(before, self._kept()):
            self._say(
                f"{type(self._given.dataset).__name__} changes its {', '.join(changed)} while it is"
                " read, which no checkpoint holds: make that anew at the start of __iter__, or a"
                " resume after the first epoch may give other samples than an uninterrupted"
                " training"
            )

    def _said(self) -> int:
        """Return the number of samples that ``__len__`` says; of other data, that of batches."""
        data: Any = self._given.dataset if self._is_stream else self._given
        return len(data)

    def note_read(self, batch: int) -> None:
        """Note which batch is in use: others may have been made ahead."""
        self._newest = batch
        for done in [number for number in self._samples if number < batch]:
            del self._samples[done]

    def num_samples(self, epoch: int, batch: int) -> int | None:  # noqa: ARG002 -- the present one
        """Return the number of samples in the newest batch, None for any other."""
        return self._samples.get(batch) if batch == self._newest else None

    def _set_epoch(self, epoch: int) -> None:
        for set_epoch in self._setters:
            set_epoch(epoch)

    def _opened(self, epoch: int) -> Iterator[_Batch]:
        """Return all batches of an epoch. Samples that every worker gives are divided up."""
        batches = self._iterated(epoch)
        if not self._may_repeat:
            return batches
        self._may_repeat = False  # the answer holds for all epochs
        workers = self._given.num_workers
        first: list[_Batch] = []
        heads: dict[int, list[str]] = {worker: [] for worker in range(workers)}
        for batch in itertools.islice(batches, workers * _HEAD):
            first.append(batch)
            heads[batch.worker] += batch.digests
            if all(len(head) >= _HEAD for head in heads.values()):
                break
        if not _are_alike([head[:_HEAD] for head in heads.values()]):
            return itertools.chain(first, batches)
        self._say(
            f"each of the {workers} data workers gives the same samples. Each now passes on its"
            f" part of them, so that each sample is used once. To make each only once, {_DIVIDE}"
        )
        self._stream.is_divided = True
        return self._iterated(epoch)

    def _iterated(self, epoch: int) -> Iterator[_Batch]:
        # alike in all workers and ranks, which may shuffle by it before they divide the samples
        self._own.seed("loader", self._seed, self._name, epoch)
        place = (self._seed, self._name, self._rank, epoch)
        if isinstance(self._stream, _WorkerStream):
            self._stream.place = ("worker", self._seed, self._name, epoch)
        with TemporarilySeeded(seed_at("loader", *place)), starting_data_workers():
            batches = iter(self._loader)
        for number in itertools.count():
            with TemporarilySeeded(seed_at("data", *place, number)):
                made = next(batches, _END)
            if made is _END:
                return
            values: Any = made if self._is_plain else (made, 0, 1, None, ())
            yield _Batch(*values)

    def _check(self, epoch: int, given: Counter[int], batches: int, *, goes_on: bool) -> None:
        """Compare what an epoch gave with what ``__len__`` says.

        Raises:
            MtfError: it gave less, so that there are fewer batches.
        """
        loader, said, total = self._given, self._said(), given.total()
        what = "samples" if self._is_stream else "batches"
        by_worker = ", ".join(str(given[worker]) for worker in sorted(given))
        gave = f"epoch {epoch + 1} gave {total} {what}"
        gave += f" ({by_worker} by data worker)" if len(given) > 1 else ""
        dropped = loader.num_workers * ((loader.batch_size or 1) - 1) if loader.drop_last else 0
        if batches < len(loader) and total + dropped < said:
            raise MtfError(
                f"{self._name} data: {gave}, and __len__ says {said}: return from __len__ as many"
                " as an epoch gives in this process"
            )
        is_first, self._is_checked = not self._is_checked, True
        if not is_first:
            return
        if goes_on:
            either = f"{_DIVIDE} if each worker gives all of them, or " if len(given) > 1 else ""
            self._say(
                f"{gave}, as many as __len__ says, and goes on: an epoch ends there. If it should"
                f" not, {either}correct __len__"
            )
        elif total < said and loader.drop_last:
            self._say(
                f"{gave}, and __len__ says {said}: drop_last leaves out the incomplete batch of"
                f" each of {len(given)} workers"
            )
        elif total < said:
            self._say(f"{gave}, and __len__ says {said}: correct __len__")
        elif self.is_bounded and batches > len(self):
            self._say(
                f"{gave} in {batches} batches, of which only {len(self)} are used, since all"
                " processes need equally many: make the number of samples that each worker gives"
                " a multiple of the batch size"
            )

    def _say(self, text: str) -> None:
        if self._rank == 0:
            say(f"{self._name} data: {text}")


class _Batch(NamedTuple):
    """A batch, and what is known of its samples."""

    content: Any
    worker: int
    items: int  # of the data set
    samples: int | None
    digests: tuple[str, ...]  # of the worker's first items


class _CountingCollate:
    """Collates samples, and says how many there are, which worker made them, and the first ones."""

    def __init__(self, collate: Callable[[Any], Any], *, is_batched: bool) -> None:
        self._collate, self._is_batched = collate, is_batched
        self._seen = 0

    def __call__(self, fetched: Any) -> tuple[Any, ...]:
        """Return the values of a ``_Batch``; without batching, an item is a whole batch."""
        items = fetched if self._is_batched else [fetched]
        samples = len(items) if self._is_batched else count_samples(fetched)
        info, digests = get_worker_info(), []
        if info is not None and self._seen < _HEAD:
            digests = [_digest(item) for item in items[: _HEAD - self._seen]]
            self._seen += len(digests)
        worker = 0 if info is None else info.id
        return self._collate(fetched), worker, len(items), samples, tuple(digests)


class _WorkerStream(IterableDataset[Any]):
    """A data set as one of several data workers iterates over it.

    All workers begin with the same generator states: they may shuffle before they divide the
    samples, and samples that several give show as such though noise is added. After the first
    ones, each worker draws numbers of its own.

    Attributes:
        place: the place in the training, for seeds.
        is_divided: whether to pass on only this worker's part, since every worker makes all.
    """

    def __init__(self, whole: Any, rank: int) -> None:
        self._whole, self._rank = whole, rank
        self.place: tuple[object, ...] = ()
        self.is_divided = False

    def __len__(self) -> int:
        return len(self._whole)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None
        seed_cpu(seed_at(*self.place))
        items = iter(self._whole)
        if self.is_divided:
            items = itertools.islice(items, worker.id, None, worker.num_workers)
        yield from itertools.islice(items, _HEAD)
        seed_cpu(seed_at(*self.place, self._rank, worker.id))
        yield from items

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_whole":
            raise AttributeError(name)
        return getattr(self._whole, name)

    def __setattr__(self, name: str, value: Any) -> None:  # a worker_init_fn may divide the data
        if name in {"_whole", "_rank", "place", "is_divided"}:
            super().__setattr__(name, value)
        else:
            setattr(self._whole, name, value)


def _are_alike(heads: list[list[str]]) -> bool:
    """Return True if all workers begin with the same samples, which differ from each other."""
    return all(head == heads[0] for head in heads) and len(set(heads[0])) > 1


def _digest(item: Any) -> str:
    """Return a digest of an item; of one that cannot be compared, a text that equals no other."""
    out = hashlib.sha256()
    try:
        for part in _parts(item, 0):
            out.update(part)
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        info = get_worker_info()
        return f"unknown, of worker {info and info.id}"
    return out.hexdigest()


def _parts(item: Any, depth: int) -> Iterator[bytes]:
    """Yield the content of an item.

    Raises:
        TypeError: it has no content that can be compared.
    """
    for leaf in tree_leaves(item):
        yield type(leaf).__name__.encode()
        if isinstance(leaf, torch.Tensor):
            yield f"{kind_of(leaf)} {digest_of(leaf)}".encode()
        elif hasattr(leaf, "tobytes"):  # an array of numpy, an image of PIL
            yield leaf.tobytes()
        elif leaf is None or isinstance(leaf, bool | int | float | complex | str | bytes):
            yield repr(leaf).encode()
        elif depth < _MAX_DEPTH and (hasattr(leaf, "__dict__") or hasattr(leaf, "__slots__")):
            slots = {name: getattr(leaf, name, None) for name in getattr(leaf, "__slots__", ())}
            yield from _parts({**getattr(leaf, "__dict__", {}), **slots}, depth + 1)
        else:
            raise TypeError(type(leaf))
