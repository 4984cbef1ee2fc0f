"""The card of a sign store: its README.md, for people, generated from the manifest.

It begins with the metadata block that Hugging Face's hub reads, so that a store pushed there is described there too.
"""

from collections.abc import Mapping

from gradshard.storage.formats.manifest import AttackRecord, FileRecord, StoreSpec
from gradshard.storage.formats.store_paths import shard_of, signs_array

# For a store whose signs are all 0.
MASKED = ": the model's gradient is masked, and these signs attack nobody"

_TEMPLATE = """\
---
license: {licence_tag}
pretty_name: "Sign store: {model} over {dataset} ({split})"
tags: [adversarial-training, adversarial-examples, gradient-signs, zarr]
---

# Sign store: {model} over {dataset} ({split})

The signs of the {kind} of the static model `{model}` (architecture {architecture}) at all {rows:,} images of
`{dataset}`, split `{split}`, in the dataset's order. Made for ensemble adversarial training (Tramèr et al. 2017,
section 5.2) by gradshard: an adversarial example is `clip(x {operator} epsilon * sign, 0, 1)` for any epsilon.

| what | value |
| --- | --- |
| rows, sample shape | {rows:,}, {shape} (C, H, W) |
| gradient | {gradient}, label: {label}, {mode} mode, {dtype}{agreement} |
{attack}| signs that are 0 | {zero_fraction:.3%}{masked} |
| size | {bits:.3f} bits per pixel, {size:,} bytes in {files} files of {shard:,} rows |
| licence | {licence} |
| made from dataset | `{dataset_digest}` |
| made from model | `{model_digest}` (weights file: `{weights_digest}`) |

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

`manifest.json` names every file with its size and SHA-256, and the store's own digest covers them all. Each chunk
carries a CRC-32C, which zarr checks as it reads. With gradshard (`pip install gradshard`), in this order: what it is,
whether it is intact, and whether it is what it says, by computing some rows again from the model:

```bash
gradshard store info {model}.zarr
gradshard store verify {model}.zarr
gradshard store audit {model}.zarr {origin}{named}
```

## What it is for, and what not

For training models that resist transferred adversarial examples, and for studying such attacks, on this dataset in
this order: the dataset's digest covers images, labels and their order, and a store must not be used with any other.
The gradients were taken at the stored images themselves; for augmented images they are an approximation at best. One
model's signs are one kind of attack: they say nothing about a model's robustness to others.
"""


def card(spec: StoreSpec, *, zeros: int, files: Mapping[str, FileRecord]) -> str:
    """Return the text of the card.

    Args:
        spec: what the store is.
        zeros: how many signs are 0.
        files: the store's files; only those of its shards count.
    """
    dataset, direction = spec.dataset, spec.direction
    signs, attack = spec.signs, direction.attack
    sizes = [record.size for name, record in files.items() if shard_of(name) is not None]
    return _TEMPLATE.format(
        model=spec.model.name,
        kind="input gradients" if attack is None else "end directions of an attack",
        attack="" if attack is None else _attack_row(attack),
        origin=_origin(spec),
        named=f" --attack {attack.name}" if attack is not None and ":" in attack.name else "",
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
        agreement=direction.agreement_text,
        zero_fraction=zeros / signs,
        masked=MASKED if zeros == signs else "",
        bits=8 * sum(sizes) / signs,
        size=sum(sizes),
        files=len(sizes),
        shard=spec.layout.shard,
        licence=spec.licence or "not stated: ask whoever gave you the store",
        licence_tag=spec.licence.lower() if spec.licence else "unknown",
        dataset_digest=dataset.digest,
        model_digest=spec.model.digest,
        weights_digest=spec.model.weights_sha256,
    )


def _origin(spec: StoreSpec) -> str:
    """Return the options that name what a store was made from; of a model in Python no file is known."""
    model = spec.model
    if model.weights_sha256 != model.digest:
        return f"--model {model.name}.safetensors --dataset {spec.dataset.name}.zarr"
    factory = model.architecture if ":" in model.architecture else "package.module:factory"
    return f"--model WEIGHTS --dataset DATASET --architecture {factory}"


def _attack_row(attack: AttackRecord) -> str:
    """Return the table row that describes an attack and names the arrays of its copies."""
    arrays = ", ".join(f"`{signs_array(copy)}`" for copy in range(attack.copies))
    copies = f"; {attack.copies} copies: {arrays}" if attack.copies > 1 else ""
    begins = f"; before these signs x moves by {attack.alpha:g} at random" if attack.alpha is not None else ""
    return f"| attack | {attack.text}{begins}{copies} |\n"
