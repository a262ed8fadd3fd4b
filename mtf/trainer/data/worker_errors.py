"""Reports the batches that a data worker cannot send; torch alone would wait for them for ever.

A thread of the worker pickles each batch and copies its tensors to ``/dev/shm``. Of an error in
this thread, ``multiprocessing`` only prints the traceback; it drops the batch.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import TYPE_CHECKING, Any

from torch._utils import ExceptionWrapper

if TYPE_CHECKING:
    from collections.abc import Callable


_ERROR_HOOK = "_on_queue_feeder_error"  # made to be replaced; concurrent.futures does so too


@dataclass(frozen=True)
class WorkerInit:
    """The ``worker_init_fn`` of our loaders.

    Attributes:
        own: the user's, called after ours.
    """

    own: Callable[[int], object] | None

    def __call__(self, worker: int) -> None:
        """Prepare the data worker that this is called in."""
        setattr(Queue, _ERROR_HOOK, _send_error)
        if self.own is not None:
            self.own(worker)


def _send_error(queue: Queue[Any], error: Exception, item: Any) -> None:
    """Send the error in place of the batch; torch raises it in the training."""
    if not (isinstance(item, tuple) and len(item) == 2):  # not one of torch's batches
        traceback.print_exception(error)
        return
    number, content = item
    if isinstance(content, ExceptionWrapper):  # of a class that cannot be pickled
        vars(content)["exc_type"] = RuntimeError
    else:
        content = ExceptionWrapper(sys.exc_info(), "in a DataLoader worker that sends a batch")
    queue.put((number, content))
