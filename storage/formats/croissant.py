"""The description of a sign store for catalogues and tools: Croissant 1.1, as JSON-LD.

See https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html; provenance is in PROV-O. The description follows
from the manifest alone, so it has no date, address or author: equal stores have equal bytes.
"""

import json
from collections.abc import Mapping
from typing import Any

from gradshard.storage.formats.manifest import FileRecord, StoreSpec
from gradshard.storage.formats.store_paths import CARD, ROWS, shard_of

# The context that the specification gives for version 1.1, and PROV-O.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

_COLUMNS = {
    "row": ("sc:Integer", "The row's number in the dataset, from 0."),
    "label": ("sc:Integer", "The label that the row's gradient was taken for."),
    "shard": ("sc:Integer", "The shard I of the row: its signs lie in signs/c/I/0/0, its label in labels/c/I."),
}


def croissant(spec: StoreSpec, *, files: Mapping[str, FileRecord], versions: Mapping[str, str]) -> str:
    """Return the text of a store's croissant.json.

    Args:
        spec: what the store is.
        files: the files to describe: all but the manifest and croissant.json.
        versions: of the libraries on which the bytes depend.
    """
    dataset, model, attack = spec.dataset, spec.model, spec.direction.attack
    held = "input gradients of" if attack is None else f"end directions of the attack {attack.text}, crafted on"
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"Sign store: {model.name} over {dataset.name} ({dataset.split})",
        "description": (
            f"The signs (-1, 0, 1) of the {held} the static model {model.name} (architecture {model.architecture}), "
            f"for all {dataset.rows} images of {dataset.name}, split {dataset.split}, in the dataset's order: two bit "
            f"planes a row, in a Zarr v3 group. {CARD} tells how to read it."
        ),
        **({"license": f"https://spdx.org/licenses/{spec.licence}.html"} if spec.licence else {}),
        # A published store is never changed.
        "version": "1.0.0",
        "keywords": ["adversarial training", "adversarial examples", "gradient signs", "zarr"],
        "isLiveDataset": False,
        "prov:wasDerivedFrom": [
            _entity(
                f"the dataset {dataset.name}, split {dataset.split}: images, labels and their order", dataset.digest
            ),
            _entity(f"the model {model.name}: architecture {model.architecture} and parameters", model.digest),
        ],
        "prov:wasGeneratedBy": _activity(spec, versions),
        "distribution": [_file(name, files[name]) for name in sorted(files)],
        "recordSet": [_rows()],
    }
    return json.dumps(document, indent=1) + "\n"


def _entity(label: str, digest: str) -> dict[str, object]:
    return {"@type": "prov:Entity", "prov:label": label, "sc:identifier": f"sha256:{digest}"}


def _activity(spec: StoreSpec, versions: Mapping[str, str]) -> dict[str, object]:
    direction = spec.direction
    operator = "+" if direction.step > 0 else "-"
    held = "gradient" if direction.attack is None else f"end direction of {direction.attack.text}"
    return {
        "@type": "prov:Activity",
        "prov:label": (
            f"sign of the {held} ({direction.gradient}, label {direction.label}, {direction.mode} mode, "
            f"{direction.dtype}{direction.agreement_text}), for the attack clip(x {operator} epsilon * sign, 0, 1)"
        ),
        "prov:wasAssociatedWith": [
            {"@type": "prov:SoftwareAgent", "prov:label": f"{library} {version}"}
            for library, version in sorted(versions.items())
        ],
    }


def _file(name: str, record: FileRecord) -> dict[str, object]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{record.size} B",
        "encodingFormat": _encoding(name),
        "sha256": record.sha256,
    }


def _encoding(name: str) -> str:
    if shard_of(name) is not None:
        return "application/octet-stream"
    return {CARD: "text/markdown", ROWS: "application/x-parquet"}.get(name, "application/json")


def _rows() -> dict[str, object]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"rows/{column}",
            "name": column,
            "description": description,
            "dataType": kind,
            "source": {"fileObject": {"@id": ROWS}, "extract": {"column": column}},
        }
        for column, (kind, description) in _COLUMNS.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        "description": "One record for each row of the dataset.",
        "key": {"@id": "rows/row"},
        "field": fields,
    }
