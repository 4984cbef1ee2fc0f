"""The section ``dataset``: which labelled images, and how they are read."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gradshard.pipeline.config.errors import did_you_mean, schema_error
from gradshard.pipeline.config.fields import (
    Arguments,
    FolderName,
    PlainName,
    Reference,
)
from gradshard.pipeline.config.section import Section
from gradshard.pipeline.types import (
    ArrayLayout,
    BrokenPolicy,
    Interpolation,
    RowOrder,
)
from gradshard.storage.ingest.registry import DATASETS

# The datasets that a key of ``dataset`` is for, where it is not for all that gradshard knows; and the keys of your own.
_FOR_FOLDERS = ("size", "crop", "interpolation", "broken", "train", "test", "class_names")
_FOR: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_FOR_FOLDERS, ("imagefolder",)),
    "seed": ("imagefolder", "idx", "npz"),
    "order": ("idx", "npz"),
    "layout": ("npz",),
    "scale": ("npz",),
}
_OF_YOUR_OWN = ("name", "call", "arguments", "classes", "order", "seed")


class DatasetParams(Section):
    """Labelled images; ``path`` is the folder (npz: the file) of the raw data, ``classes`` overrides counting.

    For ``imagefolder``: images become ``size`` x ``size`` pixels, of whose shorter side ``crop`` is kept; ``train`` and
    ``test`` are the subfolders (train: none for no training images; test: by default val or test); ``class_names`` is a
    file of the classes in the order of their labels, by default the sorted folders; ``seed`` is of the order of the
    rows. For ``idx`` and ``npz``: ``order`` says whether rows are shuffled, by ``seed``; ``auto`` does where they are
    sorted by class. For ``npz``: ``layout`` says where the channels are, and ``scale`` makes the numbers 0 to 255.

    One of your own has another name and is made by your package.module:function, ``call``, from ``arguments``.
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
    seed: NonNegativeInt = 0
    order: RowOrder = "auto"
    layout: ArrayLayout | None = None
    scale: PositiveFloat | None = None

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
        return self

    def _is_for(self, key: str) -> bool:
        if self.call is not None:
            return key in _OF_YOUR_OWN
        return key not in ("call", "arguments") and (key not in _FOR or self.name in _FOR[key])

    def _not_for(self, key: str) -> str:
        if self.call is not None:
            return "is not for a dataset that call makes: give it in arguments"
        if key == "arguments":
            return "is for a dataset of your own, which call makes: remove it"
        return f"is for dataset.name {' or '.join(_FOR[key])}, not {self.name}: remove it"
