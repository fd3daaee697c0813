"""A recipe: everything that decides what a training run computes, in frozen, validated dataclasses.

The defaults are the standard baseline of the paper's section 2, with the parameters of all six tricks; the tricks
themselves are the switches of :class:`Tricks`. A recipe file names only what differs.
"""

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reidexport.data import SameCamera
from reidexport.errors import InputError

_STRICT = ConfigDict(extra="forbid")
# "code": as the authors' published code, which made the published figures; "paper": as the text says.
Follows = Literal["code", "paper"]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]

RECIPE_FOLDER = Path(__file__).parent / "recipes"


def _key(default: Any, description: str) -> Any:
    return Field(default=default, description=description)


@dataclass(frozen=True, config=_STRICT)
class Tricks:
    """The six tricks (paper, 3), each a switch."""

    warmup: bool = _key(False, "warm up the learning rate (paper, 3.1)")
    random_erasing: bool = _key(False, "random erasing augmentation, REA (paper, 3.2)")
    label_smoothing: bool = _key(False, "label smoothing of the ID loss, LS (paper, 3.3)")
    last_stride_1: bool = _key(False, "stride 1 instead of 2 in the last stage (paper, 3.4)")
    bnneck: bool = _key(False, "BNNeck: triplet loss on f_t, ID loss on f_i (paper, 3.5)")
    center_loss: bool = _key(False, "center loss (paper, 3.6)")


@dataclass(frozen=True, config=_STRICT)
class Images:
    """Size, padding and mirroring of training images (paper, 2)."""

    height_px: Positive = _key(256, "height of the network's input (paper, 2 and table 6)")
    width_px: Positive = _key(128, "width of the network's input (paper, 2 and table 6)")
    pad_px: Annotated[int, Field(ge=0)] = _key(10, "black border added before the random crop (paper, 2)")
    flip_probability: Share = _key(0.5, "probability of mirroring (paper, 2)")


@dataclass(frozen=True, config=_STRICT)
class Batch:
    """P identities × K images (paper, 2 and table 5)."""

    num_pids: Annotated[int, Field(gt=1)] = _key(16, "P identities in a batch (paper, 2 and table 5)")
    num_instances: Annotated[int, Field(gt=1)] = _key(4, "K images of each (paper, 2 and table 5)")


@dataclass(frozen=True, config=_STRICT)
class Model:
    """The network in front of the losses (paper, 2 and 3.5)."""

    backbone: str = _key("resnet50", "a backbone of reidexport.models, or timm/NAME (paper, 2)")
    stem_relu: bool = _key(False, "ReLU after a plain ResNet's stem: the authors' code has none (paper, 2)")
    classifier_init: Follows = _key(
        "code", "behind a BNNeck: code: normal, std 0.001; paper: Kaiming (paper, 3.5)"
    )


@dataclass(frozen=True, config=_STRICT)
class Erasing:
    """Random erasing (paper, 3.2); used when ``tricks.random_erasing`` is on."""

    probability: Share = _key(0.5, "p_e, probability of erasing an image (paper, 3.2)")
    min_area: Share = _key(0.02, "least share of the image's area (paper, 3.2)")
    max_area: Share = _key(0.4, "largest share of the image's area (paper, 3.2)")
    min_aspect: Annotated[float, Field(gt=0)] = _key(0.3, "r_1, least height / width (paper, 3.2)")
    max_aspect: Annotated[float, Field(gt=0)] = _key(3.33, "r_2, largest height / width (paper, 3.2)")
    max_tries: Positive = _key(100, "rectangles to try before the image is left whole (paper, 3.2)")
    follows: Follows = _key(
        "code",
        "code: a corner among those that fit, filled with 0.485, 0.456, 0.406 after normalization; "
        "paper: any corner, tried again if it does not fit, filled with the image's mean (paper, 3.2)",
    )

    def __post_init__(self) -> None:
        """Refuse empty ranges."""
        if self.min_area > self.max_area or self.min_aspect > self.max_aspect:
            raise ValueError("min_area must not exceed max_area, nor min_aspect max_aspect")


@dataclass(frozen=True, config=_STRICT)
class Losses:
    """L = L_ID + L_triplet + β L_C (paper, eq. 6)."""

    smoothing: Share = _key(0.1, "ε of label smoothing (paper, eq. 3)")
    triplet_margin: Annotated[float, Field(ge=0)] = _key(0.3, "α of the triplet loss (paper, 2 and eq. 4)")
    center_weight: Annotated[float, Field(gt=0)] = _key(0.0005, "β of the center loss (paper, eq. 6)")
    center_learning_rate: Annotated[float, Field(gt=0)] = _key(
        0.5, "of the centers' own SGD, whose gradient is freed of β (authors' code for paper, 3.6)"
    )
    center_follows: Follows = _key(
        "code",
        "code: the mean squared distance of the batch; paper: half of the sum (paper, eq. 5)",
    )
    mine_across_processes: bool = _key(
        True, "with several processes: mine triplets in the gathered batch, not in each one's part (paper, 2)"
    )


@dataclass(frozen=True, config=_STRICT)
class Schedule:
    """Adam and its learning rate (paper, 2 and eq. 1)."""

    num_epochs: Positive = _key(120, "training epochs (paper, 2)")
    learning_rate: Annotated[float, Field(gt=0)] = _key(0.00035, "of Adam (paper, 2)")
    weight_decay: Annotated[float, Field(ge=0)] = _key(
        0.0005, "of Adam, added to the gradient (authors' code)"
    )
    warmup_epochs: Positive = _key(10, "epochs of linear warm-up (paper, 3.1 and eq. 1)")
    decay_epochs: tuple[Positive, ...] = _key((40, 70), "epochs at which the rate falls (paper, 2 and eq. 1)")
    decay_factor: Annotated[float, Field(gt=0, le=1)] = _key(0.1, "by what it is multiplied there (paper, 2)")
    follows: Follows = _key(
        "code",
        "code: warm-up from 0.01, decay in epochs 40 and 70; paper: from 0.1, decay after them (paper, eq. 1)",
    )

    def __post_init__(self) -> None:
        """Refuse decays that are out of order."""
        if list(self.decay_epochs) != sorted(set(self.decay_epochs)):
            raise ValueError(f"decay_epochs must rise, got {', '.join(map(str, self.decay_epochs))}")


@dataclass(frozen=True, config=_STRICT)
class EvaluationSettings:
    """When and how the test split is scored (paper, 4)."""

    every_epochs: Positive = _key(40, "epochs between evaluations; the last epoch is always evaluated")
    metric: Literal["by-neck", "cosine", "euclidean"] = _key(
        "by-neck", "by-neck: cosine behind a BNNeck, else euclidean (paper, table 2)"
    )
    same_camera: SameCamera = _key(
        "drop", "drop or keep: gallery images of a query's person by the query's own camera"
    )


@dataclass(frozen=True, config=_STRICT)
class Synthetic:
    """The drawn data set of a recipe that needs no --data."""

    num_train_pids: Annotated[int, Field(ge=0)] = _key(
        0, "people drawn to train on; 0: no drawing, --data is needed"
    )
    num_test_pids: Positive = _key(32, "other people drawn to search for")


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """Everything that decides what a run computes; ``tricks`` are the paper's section 3, the rest its section 2."""

    tricks: Tricks = Tricks()
    images: Images = Images()
    batch: Batch = Batch()
    model: Model = Model()
    erasing: Erasing = Erasing()
    losses: Losses = Losses()
    schedule: Schedule = Schedule()
    evaluation: EvaluationSettings = EvaluationSettings()
    synthetic: Synthetic = Synthetic()
    seed: Annotated[int, Field(ge=0)] = _key(0, "of weights, batches, augmentation and drawn images")
    checkpoint_every_epochs: Positive = _key(
        40, "epochs between checkpoints that are kept beside last and best"
    )

    @property
    def metric(self) -> Literal["cosine", "euclidean"]:
        """What to compare features with (paper, table 2)."""
        if self.evaluation.metric != "by-neck":
            return self.evaluation.metric
        return "cosine" if self.tricks.bnneck else "euclidean"


@dataclass(frozen=True)
class Key:
    """One settable key: its dotted name, its default as TOML would write it, and what it is."""

    name: str
    default: str
    description: str


@cache
def keys() -> tuple[Key, ...]:
    """Every key that a recipe file or ``--set`` can set, in order."""
    return tuple(_keys_of(Recipe(), ""))


def recipe_names() -> list[str]:
    """The recipes that come with the trainer, the cumulative ones of table 1 in their order."""
    order = [
        "standard-baseline",
        *(f"+{trick}" for trick in ("warmup", "rea", "ls", "stride1", "bnneck", "center")),
    ]
    others = sorted({path.stem for path in RECIPE_FOLDER.glob("*.toml")} - set(order))
    return [*order, *others]


def load_recipe(name: str, assignments: Sequence[str] = ()) -> Recipe:
    """Read a recipe and change keys of it.

    Args:
        name: one of :func:`recipe_names`, or a path to a TOML file.
        assignments: ``key=value`` each, with a dotted key and a value as in TOML; strings may go unquoted.

    Raises:
        InputError: there is no such recipe or key (the nearest is named), or a value is not valid.
    """
    path = _recipe_path(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    content.pop("description", None)
    for assignment in assignments:
        _assign(content, assignment)
    return recipe_from_dict(content, str(name))


def recipe_description(name: str) -> str:
    """The line with which a recipe file describes itself."""
    return str(tomllib.loads(_recipe_path(name).read_text(encoding="utf-8")).get("description", ""))


def recipe_from_dict(content: dict[str, Any], source: str) -> Recipe:
    """Validate nested plain data, as a TOML file or a checkpoint holds it.

    Raises:
        InputError: an unknown key, or a value of the wrong type or range; the message names ``source``.
    """
    for name in _leaves(content, ""):
        _check_key(name, source)
    try:
        return TypeAdapter(Recipe).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{source}: {where}: {first['msg']}, found {first['input']!r}. `python -m train list` explains the keys."
        ) from error


def recipe_differences(one: Recipe, other: Recipe) -> list[str]:
    """The keys in which two recipes differ, each with both values."""
    ours, theirs = (dict(_flat(asdict(recipe), "")) for recipe in (one, other))
    return [f"{name}: {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]


def _recipe_path(name: str) -> Path:
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise InputError(f"{path}: there is no such recipe file")
        return path
    if name not in recipe_names():
        raise InputError(
            f"there is no recipe {name!r}{_nearest(name, recipe_names())} Recipes: {', '.join(recipe_names())}; "
            "or pass a path that ends in .toml."
        )
    return RECIPE_FOLDER / f"{name}.toml"


def _assign(content: dict[str, Any], assignment: str) -> None:
    name, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"--set {assignment}: expected key=value, such as --set schedule.num_epochs=60")
    _check_key(name, "--set")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = content
    *parents, leaf = name.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
    table[leaf] = value


def _check_key(name: str, source: str) -> None:
    known = [key.name for key in keys()]
    if name not in known:
        by_leaf = {each.rpartition(".")[2]: each for each in known}
        near = difflib.get_close_matches(name, known, 1, 0.5)
        near = near or [
            by_leaf[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], by_leaf, 1, 0.5)
        ]
        nearest = f"; did you mean {near[0]}?" if near else "."
        raise InputError(f"{source}: there is no key {name}{nearest} `python -m train list` shows all keys.")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.4)
    return f"; did you mean {near[0]}?" if near else "."


def _leaves(content: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, _ in _flat(content, prefix):
        yield name


def _flat(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _keys_of(section: Any, prefix: str) -> Iterator[Key]:
    for each in fields(section):
        value = getattr(section, each.name)
        if is_dataclass(value):
            yield from _keys_of(value, f"{prefix}{each.name}.")
        else:
            info = type(section).__pydantic_fields__[each.name]
            yield Key(prefix + each.name, _as_toml(value), info.description or "")


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
