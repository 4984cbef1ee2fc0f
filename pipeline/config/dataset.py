"""The section ``dataset``: which labelled images, and how they are read."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gradshard.pipeline.config.errors import did_you_mean, schema_error
from gradshard.pipeline.config.fields import (
    Arguments,
    Columns,
    FolderName,
    HubName,
    PlainName,
    Reference,
    Seed,
)
from gradshard.pipeline.config.section import Section
from gradshard.pipeline.types import (
    ArrayLayout,
    BrokenPolicy,
    Interpolation,
    RowOrder,
)
from gradshard.storage.ingest.registry import DATASETS

# Per key of ``dataset``, the datasets that it is for, if not for all known ones; and the keys for your own dataset.
_FOLDERS, _LIBRARIES = ("imagefolder",), ("huggingface", "torchvision")
_RESIZING = ("size", "crop", "interpolation")
_FOR: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*_RESIZING, "train", "test"), _FOLDERS + _LIBRARIES),
    **dict.fromkeys(("broken", "class_names"), _FOLDERS),
    "seed": (*_FOLDERS, "idx", "npz", *_LIBRARIES),
    "order": ("idx", "npz", *_LIBRARIES),
    **dict.fromkeys(("layout", "scale"), ("npz", "huggingface")),
    **dict.fromkeys(("columns", "hub"), ("huggingface",)),
    **dict.fromkeys(("kind", "download"), ("torchvision",)),
}
_OF_YOUR_OWN = ("name", "call", "arguments", "classes", "order", "seed")


class DatasetParams(Section):
    """Labelled images; ``path`` is the folder (npz: the file) of the raw data, ``classes`` overrides counting.

    For ``imagefolder``: images become ``size`` x ``size`` pixels, and ``crop`` is the share of the shorter side that is
    kept. ``train`` and ``test`` are the subfolders; if ``train`` is null there are no training images, and ``test`` is
    val or test by default. ``class_names`` is a file of the classes in the order of their labels, by default the sorted
    folders. ``seed`` determines the order of the rows. For all others whose files you give: ``order`` says whether rows
    are shuffled, by ``seed``; ``auto`` shuffles if they are sorted by class. For ``npz``, and arrays of
    ``huggingface``: ``layout`` says where the channels are, and ``scale`` is the factor that makes the numbers 0 to
    255.

    For ``huggingface`` (without ``path`` from the ``hub``, by a name that may end in @REVISION) and ``torchvision``:
    ``train`` and ``test`` are the splits, and images are resized only if ``size`` is given. ``columns`` are those of
    image and label; ``kind`` is the name of torchvision's class, which also gets ``arguments`` and may download missing
    files if ``download`` is true.

    Your own dataset has a name of its own and is made by ``call``, your package.module:function, from ``arguments``.
    """

    name: PlainName
    call: Reference | None = None
    arguments: Arguments = Field(default_factory=dict)
    path: str | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    size: PositiveInt | None = None
    crop: Annotated[float, Field(gt=0, le=1)] = 0.875
    interpolation: Interpolation = "bicubic"
    broken: BrokenPolicy = "fail"
    train: FolderName | None = "train"
    test: FolderName | None = None
    class_names: str | None = None
    seed: Seed = 0
    order: RowOrder = "auto"
    layout: ArrayLayout | None = None
    scale: PositiveFloat | None = None
    hub: HubName | None = None
    columns: Columns | None = None
    kind: Annotated[str, Field(min_length=1)] | None = None
    download: bool = False

    @model_serializer(mode="wrap")
    def _without_what_does_not_apply(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        dumped: dict[str, object] = dump(self)
        return {key: dumped[key] for key in dumped if self._is_for(key)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.call is not None and self.name in DATASETS:
            raise schema_error("name", f"is {self.name}, another dataset's: give that of call a name of its own")
        if self.call is None and self.name not in DATASETS:
            meant = did_you_mean(self.name, list(DATASETS))
            raise schema_error("name", f"is {self.name}, which is no dataset{meant}; your own needs call")
        for key in sorted(self.model_fields_set - {"call"}):
            if not self._is_for(key):
                raise schema_error(key, self._not_for(key))
        if self.name == "imagefolder":
            if self.size is None:
                raise schema_error("size", "is missing: how many pixels high and wide the images shall be, such as 299")
            if self.classes is not None:
                raise schema_error("classes", "is for other datasets: the folders are the classes, or name class_names")
        if self.name in _LIBRARIES and self.call is None:
            self._check_library()
        return self

    def _check_library(self) -> None:
        if self.name == "torchvision" and self.kind is None:
            raise schema_error("kind", "is missing: the name of torchvision's class, such as FashionMNIST")
        if self.hub is not None and self.path is not None:
            raise schema_error("hub", "and path are two places: remove one of them")
        if self.train is None:
            raise schema_error(
                "train", "is null, which is for imagefolder alone: name the split of the training images"
            )
        resizing = [key for key in _RESIZING if key in self.model_fields_set]
        if self.size is None and resizing:
            raise schema_error(resizing[0], "says how images are resized, but size is missing: add it")

    def _is_for(self, key: str) -> bool:
        if self.call is not None:
            return key in _OF_YOUR_OWN
        if key == "arguments":
            return self.name == "torchvision"
        return key != "call" and (key not in _FOR or self.name in _FOR[key])

    def _not_for(self, key: str) -> str:
        if self.call is not None:
            return "is not for a dataset that call makes: give it in arguments"
        if key == "arguments":
            return "is for a dataset of your own, which call makes: remove it"
        *others, last = _FOR[key]
        return f"is for dataset.name {', '.join(others)}{' or ' * bool(others)}{last}, not {self.name}: remove it"
