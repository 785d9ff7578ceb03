"""A queue that gives many items at once."""

import time

from mobula.util.queue import Empty, Queue


class BatchQueue(Queue):
    """A queue that gives many items at once."""

    def get_batch(self, batch_size=None, total_timeout=None, first_timeout=None):
        start = time.monotonic()
        items = [self.get(timeout=first_timeout)]
        while batch_size is None or len(items) < batch_size:
            passed = time.monotonic() - start
            left = 0 if total_timeout is None and batch_size is None else total_timeout and total_timeout - passed
            try:
                items.append(self.get_nowait() if left is not None and left <= 0 else self.get(timeout=left))
            except Empty:
                break
        return items
