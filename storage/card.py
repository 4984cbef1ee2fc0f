"""The card: the human page of a sign store, its README.md, generated from the manifest's facts."""

from storage.manifest import StoreSpec

FILE_NAME = "README.md"

_TEMPLATE = """\
# Sign store: {model} over {dataset} ({split})

The signs of the input gradients of the static model `{model}` (architecture {architecture}) at all {rows:,} images of
`{dataset}`, split `{split}`, in the dataset's order. Made for ensemble adversarial training (Tramèr et al. 2017,
section 5.2) by gradshard: an adversarial example is `clip(x {operator} epsilon * sign, 0, 1)` for any epsilon.

| what | value |
| --- | --- |
| rows, sample shape | {rows:,}, {shape} (C, H, W) |
| gradient | {gradient}, label: {label}, {mode} mode, {dtype} |
| signs that are 0 | {zero_fraction:.3%} |
| size | {bits:.3f} bits per pixel, {size:,} bytes in {files} files |
| dataset digest | `{dataset_digest}` |
| model digest | `{model_digest}` |

## Read it

Nothing but zarr and numpy is needed:

```python
import numpy as np, zarr

planes = zarr.open_group("{model}.zarr", mode="r")["signs"][0:{example}]
bits = np.unpackbits(planes, axis=-1, count={pixels}).view("int8")
signs = (2 * bits[:, 0] + bits[:, 1] - 1).reshape(-1, {shape})  # -1, 0, +1; a 2 was never written
```

`labels` holds the label that each gradient was taken for.

## Check it

`manifest.json` names every file with its size and SHA-256. Each chunk carries a CRC-32C, which zarr checks as it reads.
The dataset digest covers images, labels and their order: use the store with that dataset only.
"""


def card(spec: StoreSpec, *, zero_fraction: float, size: int, files: int) -> str:
    """The text of the card.

    Args:
        spec: what the store is.
        zero_fraction: the share of signs that are 0.
        size: the bytes of all shards.
        files: their number.
    """
    dataset, direction = spec.dataset, spec.direction
    return _TEMPLATE.format(
        model=spec.model.name,
        architecture=spec.model.architecture,
        dataset=dataset.name,
        split=dataset.split,
        rows=dataset.rows,
        shape=", ".join(map(str, dataset.sample_shape)),
        pixels=dataset.pixels,
        example=min(dataset.rows, spec.layout.chunk),
        operator="+" if direction.step > 0 else "-",
        gradient=direction.gradient,
        label=direction.label,
        mode=direction.mode,
        dtype=direction.dtype,
        zero_fraction=zero_fraction,
        bits=8 * size / (dataset.rows * dataset.pixels),
        size=size,
        files=files,
        dataset_digest=dataset.digest,
        model_digest=spec.model.digest,
    )
