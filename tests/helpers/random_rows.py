"""Random images and signs in memory, read as training reads rows."""

import numpy as np

from gradshard.storage.streaming.reader import RawBatch


class RandomRows:
    """Sixty random rows, their signs, and the same signs of other rows for a second store."""

    def __init__(self):
        draws = np.random.default_rng(0)
        self.images = draws.integers(0, 256, (60, 1, 28, 28), dtype=np.uint8)
        self.labels = draws.integers(0, 10, 60)
        self.planes = np.packbits(draws.integers(0, 2, (60, 1, 784), dtype=np.uint8), axis=2).repeat(2, axis=1)
        self.planes[:, 1] = 0

    def read(self, requests):
        """Yield the requested batches, one after the other."""
        for request in requests:
            planes = None if request.store is None else self.planes[request.rows]
            if isinstance(request.store, tuple):
                planes = np.stack([self.planes[(request.rows + number) % 60] for number in range(len(request.store))])
            yield RawBatch(request.rows, self.images[request.rows], self.labels[request.rows], planes)
