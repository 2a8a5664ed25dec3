"""Batches of small images side by side on a CPU, each on a thread of its own.

On small images PyTorch's intra-op threads gain little: most operations are too short to be divided.
As many batches at once, each with one intra-op thread, use the cores from end to end. Python's
threads suffice, because PyTorch lets go of the interpreter while it computes, and they share the
base's weights.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil

import torch

MOST_PIXELS = 128 * 128
"""Of an image that is drawn on one thread. The operations of larger ones are long enough to be
divided (docs/performance.md), and several batches at once would multiply their memory."""
MOST_THREADS = 8
"""What leads from one operation to the next runs on one thread at a time."""


def thread_count(device: torch.device, width: int, height: int) -> int:
    """How many batches of such images are drawn at once.

    It depends on nothing else of what there is to draw, so an image has the same bytes whether it
    is drawn alone, with others, or after an interruption.

    Args:
        device: Where the images are drawn.
        width: Of an image in pixels.
        height: Likewise.
    """
    if device.type != "cpu" or width * height > MOST_PIXELS:
        return 1
    return min(torch.get_num_threads(), MOST_THREADS)


class BatchThreads:
    """Threads that draw batches; `batch_threads` makes them.

    Args:
        pool: None: batches are drawn as they are handed over, by the thread that does so.
        count: How many batches are drawn at once.
    """

    def __init__(self, pool: ThreadPoolExecutor | None, count: int) -> None:
        self.count = count
        self.stop = threading.Event()
        """Set once nothing more is wanted; a batch ends at its next sampling step."""
        self._pool = pool
        self._group: list[Future[None]] = []
        self._before: list[Future[None]] = []

    def submit(self, draw: Callable[[], None]) -> None:
        """Have a batch drawn as soon as those before it let it."""
        if self._pool is None:
            draw()
        else:
            self._group.append(self._pool.submit(draw))

    def end_group(self) -> None:
        """Wait for the group of batches before the one that ends here.

        So the next group can be prepared while this one is drawn, and no more of them are in memory
        than these two.

        Raises:
            BaseException: What a batch of the group before raised.
        """
        before, self._before, self._group = self._before, self._group, []
        for future in before:
            future.result()

    def batch_size(self, images: int, most: int) -> int:
        """Images of a batch with which all threads end together.

        Args:
            images: How many there are to draw.
            most: In a batch.
        """
        if self.count == 1:
            return most
        rounds = ceil(images / (self.count * most))
        return ceil(images / (self.count * rounds))


@contextmanager
def batch_threads(count: int) -> Iterator[BatchThreads]:
    """Threads for the length of a block, which ends when all batches are drawn.

    While there are several, this thread has one intra-op thread as well: what it prepares has the
    same bytes as with one thread, and a thread that PyTorch hasn't seen takes the number that was
    set last in any thread.

    Args:
        count: How many; with 1 there are none, and nothing changes.

    Raises:
        BaseException: What a batch raised. Others end at their next sampling step, as they do when
            the block raises, such as by Ctrl-C.
    """
    if count == 1:
        yield BatchThreads(None, 1)
        return
    intra_op = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(count, "draw", torch.set_num_threads, (1,))
    threads = BatchThreads(pool, count)
    try:
        yield threads
        threads.end_group()
        threads.end_group()
    finally:
        threads.stop.set()
        try:
            pool.shutdown(cancel_futures=True)
        finally:
            torch.set_num_threads(intra_op)
