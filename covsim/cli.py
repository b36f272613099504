"""The command line; `covsim --help` lists its commands.

Each command imports what it needs when it is called, so that `covsim --help` answers at once. Exit codes: 0 all went
well, 1 an expectation failed, 2 the input cannot be used, 130 interrupted and resumable.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from covsim.scenario import Loaded

BAD_INPUT = 2
LINE_LENGTH = 120  # of lines that are wrapped at all

app = typer.Typer(
    help="A wind tunnel for trustless training runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: loading rich for it would take longer than all the rest
)

File = Annotated[str, typer.Argument(help="A scenario file, or the name of one that ships with covsim.")]
OverrideList = Annotated[
    list[str] | None,
    typer.Argument(metavar="[a.b=c]...", help="Changes: a.b=c sets, +a.b=c adds a new name, ~a.b removes."),
]


def main() -> None:
    """The entry point of the `covsim` command."""
    app()


@app.command()
def check(files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Scenario files or names.")]) -> None:
    """Say what is wrong with scenarios, and warn of what cannot work."""
    from covsim.scenario import PluginsNotLoaded, ScenarioError, load_with_source, warnings

    bad = False
    for file in files:
        try:
            scenario = load_with_source(file, plugins=False).scenario
        except PluginsNotLoaded as unknown:
            print(f"{file}: not checked: {unknown}")
            continue
        except ScenarioError as error:
            _complain(error)
            bad = True
            continue
        print(f"{file}: ok")
        for warning in warnings(scenario):
            print(f"{file}: warning: {warning}")
    if bad:
        raise typer.Exit(BAD_INPUT)


@app.command()
def show(file: File, overrides: OverrideList = None) -> None:
    """Print a scenario with `extends`, overrides and defaults resolved; as comments, what its machines amount to."""
    from covsim.scenario import resolved_text
    from covsim.scenario.amounts import amounts

    scenario = _load(file, overrides or [], plugins=False).scenario
    print(resolved_text(scenario), end="")
    print(*(f"# {line}" for line in amounts(scenario)), sep="\n")


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files."""
    from covsim.scenario.json_schema import json_schema_text

    print(json_schema_text(), end="")


@app.command("list")
def list_parts(
    what: Annotated[str | None, typer.Argument(help="behaviors, protocols, scenarios, ...; by default all.")] = None,
) -> None:
    """List what a scenario can name."""
    from covsim.scenario.catalog import SORTS, catalog, sources

    for sort in SORTS if what is None else (what,):
        try:
            entries = catalog(sort)
        except ValueError as error:
            _fail(error)
        if what is None:
            print(f"{sort}:")
        width = max(map(len, entries), default=0)
        origins = sources(sort) if what is not None else {}
        for name, line in entries.items():
            print(f"{'  ' if what is None else ''}{name:{width}}  {line}")
            if name in origins:
                print(_indented(origins[name], width + 2))


@app.command("import-hparams")
def import_hparams(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="A hparams file of the live network (templar).")],
    out: Annotated[Path | None, typer.Option(help="Write the scenario to this file; by default it is printed.")] = None,
    peers: Annotated[int | None, typer.Option(help="How many peers; by default as many as in covenant72b.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Outer steps of the run; by default as in covenant72b.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file that is there.")] = False,
) -> None:
    """Make a scenario of a live hparams file, and say what became of each key."""
    if out is not None and out.exists() and not force:
        _fail(f"{out} is there already; --force overwrites it")

    from covsim.scenario.hparams import HparamsError
    from covsim.scenario.hparams import import_hparams as imported_from

    try:
        imported = imported_from(file, peers, rounds)
    except HparamsError as error:
        _fail(error)
    _deliver(imported.text, out)
    for line in imported.report:
        _complain(line)


@app.command()
def run(
    file: Annotated[str | None, typer.Argument(help="A scenario file, or the name of one that ships.")] = None,
    overrides: OverrideList = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the scenario's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of all results; by default results/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the interrupted run in this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again even if this very run lies there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table; only where the results are.")] = False,
) -> None:
    """Run a scenario, and judge what it expects if it does."""
    if resume is not None and (file is not None or seed is not None):
        _fail(f"--resume brings its own scenario: covsim run --resume {resume}")
    if resume is not None and (out is not None or force):
        _fail(f"--resume goes on in its own folder: covsim run --resume {resume}")
    if resume is None and file is None:
        _fail("give a scenario, or --resume with the folder of an interrupted run")
    loaded = None if file is None else _load(file, [*(overrides or []), *([] if seed is None else [f"seed={seed}"])])

    from covsim.cli_run import Runner

    runner = Runner(out, force, quiet)
    if resume is not None:
        raise typer.Exit(runner.resume(resume))
    assert loaded is not None, "either a scenario or a folder"
    raise typer.Exit(runner.run(loaded.scenario, loaded.source_text))


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    uid: Annotated[int, typer.Option(help="The peer.")],
    round: Annotated[int | None, typer.Option(help="Tell all of this round, stage by stage.")] = None,
    validator: Annotated[str | None, typer.Option(help="Only what this validator saw and did.")] = None,
) -> None:
    """Tell a peer's story: what validators saw of it, what moved, which rules acted, and what it was paid."""
    from covsim.cli_runs import explain as explained

    raise typer.Exit(explained(run, uid, round, validator))


@app.command()
def trace(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="The file to write; by default trace.json in RUN.")] = None,
) -> None:
    """Write a run's timeline as Chrome trace JSON: open it in Perfetto, with a lane for everything a node does."""
    from covsim.cli_runs import trace as traced

    raise typer.Exit(traced(run, out))


@app.command()
def rescore(
    evidence: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or an evidence.parquet.")],
    overrides: OverrideList = None,
    out: Annotated[Path | None, typer.Option(help="Write the comparison, a row per peer, to this .csv file.")] = None,
) -> None:
    """Judge recorded evidence by other rules, in seconds and without training, and show who would have profited."""
    from covsim.cli_rescore import rescore as rescored

    raise typer.Exit(rescored(evidence, overrides or [], out))


@app.command()
def retime(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="RUN")],
    settings: Annotated[list[str], typer.Argument(help="Links, machines or store, as a.b=v1,v2.")],
    out: Annotated[Path | None, typer.Option(help="Write all numbers here, as CSV.")] = None,
) -> None:
    """Run a grid of links over a finished run, and train only where the schedule changes."""
    from covsim.cli_retime import retime as retimed

    raise typer.Exit(retimed(run, settings, out))


@app.command()
def attribute(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    uid: Annotated[int, typer.Option(min=0, help="The peer.")],
    honest: Annotated[
        bool, typer.Option("--honest", help="Run again with the peer honest; default if it cheats.")
    ] = False,
    absent: Annotated[bool, typer.Option("--absent", help="Without the peer; default if it is honest.")] = False,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Over so many seeds, from the run's own on.")] = 1,
    jobs: Annotated[int, typer.Option(min=0, help="Processes of one torch thread each; 0: this one.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder of all results; by default that of the run.")] = None,
) -> None:
    """Price what one peer changed: the run beside the same run with that peer honest or absent, on the same streams."""
    if honest and absent:
        _fail("--honest or --absent, not both")

    from covsim.cli_attribute import show_attribution

    how: Literal["honest", "absent"] | None = "honest" if honest else "absent" if absent else None
    raise typer.Exit(show_attribution(run, uid, how, seeds, jobs, out))


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    uid: Annotated[int | None, typer.Option(min=0, help="Print this peer's record on the chain, with proofs.")] = None,
) -> None:
    """Check a run's ledger, payloads, weights and final parameters, from its files alone."""
    from covsim.cli_verify import verify as verified

    raise typer.Exit(verified(run, uid))


@app.command()
def matrix(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A matrix file, or `matrix`, which ships with covsim.")],
    overrides: OverrideList = None,
    jobs: Annotated[
        int | None, typer.Option(min=0, help="Processes of one torch thread each; 0: none of its own.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs; by default results/<name>.")] = None,
    tables: Annotated[
        Path | None, typer.Option(help="Folder of tables and figures; by default results/<name>.")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it would cost, and stop.")] = False,
    redraw: Annotated[bool, typer.Option("--redraw", help="Run nothing; work from the table that is there.")] = False,
) -> None:
    """Run behaviors against aggregators, selections and shares of attackers, and draw who beats what."""
    from covsim.cli_matrix import matrix as run_matrix

    raise typer.Exit(run_matrix(file, overrides or [], jobs, out, tables, estimate=estimate, redraw=redraw))


@app.command()
def emulate(
    file: Annotated[str | None, typer.Argument(help="A scenario file, or the name of one that ships.")] = None,
    overrides: OverrideList = None,
    out: Annotated[Path | None, typer.Option(help="Folder of all results; by default results.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only where the results are.")] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Remove what runs that were killed have left behind.")] = False,
) -> None:
    """Run a scenario on real processes, sockets and shaped links, in scaled real time."""
    from covsim import cli_emulate

    if clean:
        raise typer.Exit(cli_emulate.clean())
    if file is None:
        _fail("give a scenario, or --clean")
    loaded = _load(file, overrides or [])
    raise typer.Exit(cli_emulate.emulate(loaded.scenario, loaded.source_text, out, quiet))


@app.command()
def compare(
    simulated: Annotated[Path, typer.Argument(metavar="SIM", help="Folder of a simulation.")],
    emulated: Annotated[Path, typer.Argument(metavar="EMU", help="Folder of an emulation of the same scenario.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the tables; by default comparison in EMU.")] = None,
    calibrate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the scenario with figures fitted to EMU to this file.")
    ] = None,
) -> None:
    """Hold a simulation and an emulation against each other: times, who was on time, verdicts, theta."""
    from covsim.cli_emulate import compare as compare_runs

    raise typer.Exit(compare_runs(simulated, emulated, out, calibrate))


@app.command()
def plan(
    file: File,
    overrides: OverrideList = None,
    target: Annotated[
        str | None, typer.Option(help="utilization=0.95, on_time=0.9, round=25 min: what would have to change.")
    ] = None,
    prices: Annotated[
        list[str] | None, typer.Option(metavar="FILE|a=b", help="gpu_hour=2, or a file with prices:; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
    figures: Annotated[Path | None, typer.Option(help="Draw figures into this folder.")] = None,
) -> None:
    """Say what a scenario would take, without running it: seconds, bytes, what binds, a bill."""
    scenario = _load(file, overrides or []).scenario

    from covsim.cli_plan import show_plan

    raise typer.Exit(show_plan(scenario, target, prices or [], as_json, figures))


@app.command()
def papers(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="c1, c2, ...; by default all.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes of one torch thread each.")] = None,
) -> None:
    """Run the studies of published claims, and publish what they show."""
    from covsim.registry import did_you_mean
    from covsim.sweep.papers import ALL, FORMULAS
    from covsim.sweep.papers.__main__ import main as run_studies

    known = [*ALL, *FORMULAS]
    for name in names or []:
        if name not in (*known, "all"):
            _fail(f"no study is called {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    raise typer.Exit(run_studies([*(names or ["all"]), *([] if jobs is None else ["--jobs", str(jobs)])]))


def _load(file: str, overrides: list[str], plugins: bool = True) -> Loaded:
    """A scenario and the text of its file; a bad one ends the command."""
    from covsim.scenario import PluginsNotLoaded, ScenarioError, load_with_source

    try:
        return load_with_source(file, overrides, plugins)
    except PluginsNotLoaded as unknown:
        _fail(f"{file}: {unknown}")
    except ScenarioError as error:
        _fail(error)


def _indented(text: str, columns: int) -> str:
    """A text in lines that start so many columns further right."""
    return textwrap.fill(text, LINE_LENGTH, initial_indent=" " * columns, subsequent_indent=" " * columns)


def _deliver(text: str, out: Path | None) -> None:
    """Print a text, or write it to a file, whole or not at all."""
    if out is None:
        print(text, end="")
        return
    from covsim.record.files import write_text

    try:
        write_text(out, text)
    except OSError as error:
        _fail(f"{out} cannot be written: {error.strerror}")


def _fail(message: object) -> NoReturn:
    _complain(message)
    raise typer.Exit(BAD_INPUT)


def _complain(message: object) -> None:
    print(message, file=sys.stderr)
