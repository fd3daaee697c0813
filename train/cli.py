"""The trainer's command line: ``python -m train RECIPE …``, ``list``, ``table``, ``campaign`` and ``join``."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from reidruntime.threads import default_threads

from reidexport.cli.option_groups import with_option_groups
from reidexport.data import SameCamera
from reidexport.data.layouts import left_out_of
from reidexport.errors import ReidExportError
from reidexport.files import check_replaceable
from reidexport.memory import keep_freed_memory
from train.campaign import campaign_parts, run_campaign
from train.checkpoints import LAST
from train.dataset import DataSource, data_of_recipe
from train.execution import Precision
from train.interruption import stop_requested
from train.parts import join_parts
from train.recipe import keys, load_recipe, recipe_description, recipe_names
from train.tables import TABLES, run_table
from train.training import TrainingOptions, train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

_COMMANDS = ("run", "list", "table", "campaign", "join")

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run; made if missing.")]
_DATA = typer.Option(
    "--data", metavar="ROOT", help="Data set, or a folder that holds it, as for `reidexport eval`."
)
DataNeeded = Annotated[Path, _DATA]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", help="Which data set, where --data holds several.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the recipe; repeatable. `list` shows all keys."
    ),
]


@dataclass(frozen=True)
class ImagesOptions:
    """What a run is trained and scored on."""

    data: Annotated[Path | None, _DATA] = None
    dataset: DatasetName = None
    same_camera: Annotated[
        SameCamera | None,
        typer.Option(
            help="Gallery images of a query's person by the query's own camera; sets evaluation.same_camera."
        ),
    ] = None

    def source(self) -> DataSource | None:
        """Where the images are; None where the recipe draws them."""
        return None if self.data is None else DataSource(self.data, self.dataset)

    def assignments(self) -> list[str]:
        """What the options change of the recipe."""
        return [f"evaluation.same_camera={self.same_camera}"] if self.same_camera else []


@dataclass(frozen=True)
class ExecutionOptions:
    """How runs are computed, and for how long."""

    init: Annotated[
        str,
        typer.Option(
            metavar="imagenet|none|FILE",
            help="First weights: downloaded, random, or a checkpoint's backbone.",
        ),
    ] = "imagenet"
    precision: Annotated[
        Precision,
        typer.Option(
            help="Of the backbone; auto: bf16 autocast on a GPU, fp32 on a CPU. fp32 is float32 itself, never TF32."
        ),
    ] = "auto"
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the backbone with torch.compile.")] = (
        False
    )
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read images and make batches. [default: cores]")
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Save and stop after this time, with exit status 130, to be resumed."),
    ] = None

    def training_options(self) -> TrainingOptions:
        """Options of a run that continues what its folder holds."""
        return TrainingOptions(
            init=self.init,
            resume=True,
            precision=self.precision,
            compiled=self.compiled,
            workers=self.workers or default_threads(),
        )


@dataclass(frozen=True)
class StepOptions(ExecutionOptions):
    """Also, which steps and evaluations a run is made of."""

    cuda_graph: Annotated[
        bool,
        typer.Option(
            "--cuda-graph/--no-cuda-graph",
            help="On a GPU, record the step in a CUDA graph where that is possible.",
        ),
    ] = True
    no_evaluation: Annotated[
        bool,
        typer.Option(
            "--no-evaluation",
            help="Never score the test split: bounding_box_train alone is data enough, no best.pth.",
        ),
    ] = False

    def training_options(self) -> TrainingOptions:
        """Options of a run that continues what its folder holds."""
        return replace(
            super().training_options(), cuda_graph=self.cuda_graph, evaluate=not self.no_evaluation
        )


@app.command("run", hidden=True)
@with_option_groups
def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe's name, or a path to a .toml file.")
    ],
    out: Out,
    assignments: Assignments = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that --out holds.")] = False,
    save_every: Annotated[
        float,
        typer.Option(
            "--save-every", min=0, metavar="SECONDS", help="At least this long between writes of last.pth."
        ),
    ] = 60.0,
    *,
    images: ImagesOptions,
    execution: StepOptions,
) -> None:
    """Train a recipe: checkpoints, history, TensorBoard's scalars and plots go to --out.

    Interrupt it with Ctrl-C: it saves and stops, and --resume continues.
    """
    resolved = load_recipe(recipe, [*(assignments or ()), *images.assignments()])
    options = replace(execution.training_options(), resume=resume, save_every_s=save_every)
    if resolved.synthetic.num_train_pids and options.init == "imagenet":
        options = replace(options, init="none")
    dataset = data_of_recipe(resolved, images.source(), out, resume=resume, evaluate=options.evaluate)
    if left_out := left_out_of(dataset):
        _log(left_out)
    with stop_requested(execution.minutes) as stop:
        result = train(resolved, dataset, out, options, stop=stop, log=_log)
    if not result:
        return  # another process prints
    if options.evaluate:
        print(f"rank-1 {result['rank1']:.2%}  mAP {result['mAP']:.2%}  {out / LAST}")
    else:
        print(f"not evaluated: `reidexport eval {out / LAST} --data ROOT` scores it")


@app.command("list")
def list_() -> None:
    """Show every recipe, and every key that --set and recipe files accept, with the paper's section."""
    print(_recipes(), _keys(), sep="\n\n")


@app.command("table")
@with_option_groups
def table(
    number: Annotated[int, typer.Argument(min=1, max=max(TABLES), help="Table of the paper, 1 to 6.")],
    out: Out,
    data: DataNeeded,
    dataset: DatasetName = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Table 3: the data set to test on, as --dataset names it.")
    ] = None,
    assignments: Assignments = None,
    *,
    execution: ExecutionOptions,
) -> None:
    """Train what a table of the paper compares, or reuse the runs in --out, and print its rows beside the paper's.

    Interrupted, the same command continues. Tables share runs where the paper's rows are the same network.
    """
    with stop_requested(execution.minutes) as stop:
        markdown = run_table(
            number,
            DataSource(data, dataset),
            out,
            execution.training_options(),
            assignments=assignments or (),
            target=target,
            stop=stop,
            log=_log,
        )
    print(markdown, end="")


@app.command("campaign")
@with_option_groups
def campaign(
    out: Out,
    data: DataNeeded,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where to write the results, a folder for each part. [default: OUT/results]"
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="PART", help=f"One part: {', '.join(campaign_parts())}.")
    ] = None,
    dataset: DatasetName = None,
    assignments: Assignments = None,
    *,
    execution: StepOptions,
) -> None:
    """Train the rows of table 1 with a ResNet-18, the strong baseline first: for one large GPU, in parts.

    Every part's weights are written in half precision, in files under 16 MiB, with history and result; `join` makes a
    checkpoint of them. Interrupted, or stopped by --minutes, the same command continues.
    """
    with stop_requested(execution.minutes) as stop:
        text = run_campaign(
            DataSource(data, dataset),
            out,
            execution.training_options(),
            results=results or out / "results",
            only=only,
            assignments=assignments or (),
            stop=stop,
            log=_log,
        )
    print(text, end="")


@app.command("join")
def join(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with the results of a part of the campaign.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The checkpoint to write, such as best.pth.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE, if it exists.")] = False,
) -> None:
    """Join the parts of a half-precision checkpoint, which `reidexport eval` and `onnx` then accept."""
    check_replaceable(out, force=force)
    join_parts(folder, out)
    print(out)


def main(arguments: list[str] | None = None) -> None:
    """Run the trainer; a first word that is not a command is a recipe."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _COMMANDS:
        arguments = ["run", *arguments]
    keep_freed_memory()
    try:
        app(arguments, prog_name="python -m train")
    except ReidExportError as error:
        print(f"train: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        print(f"train: {error.filename or 'the file system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        print(f'train: {error.name} is not installed: pip install "reidexport[train]"', file=sys.stderr)
        sys.exit(3)


def _recipes() -> str:
    return "\n".join(["Recipes:", *(f"  {name:24} {recipe_description(name)}" for name in recipe_names())])


def _keys() -> str:
    return "\n".join(["Keys:", *(f"  {key.name:32} {key.default:12} {key.description}" for key in keys())])


@app.callback(
    help="Train strong baselines: python -m train RECIPE --data ROOT --out DIR [--set KEY=VALUE …]\n\n"
    "`python -m train RECIPE --help` shows the options of a run.\n\n\b\n" + _recipes() + "\n\n\b\n" + _keys()
)
def _common() -> None:
    """Nothing is common to the commands."""


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
