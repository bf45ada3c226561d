"""``qdrant-rerank models``: list, pull, verify, rm and path of the models on this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
from rich import box
from rich.table import Table
from rich.text import Text

from qdrant_rerank.cli.shared import BadInput, console, counted, json_option, print_json
from qdrant_rerank.errors import InvalidInputError, ModelFileError
from qdrant_rerank.hub.precision import Precision
from qdrant_rerank.hub.registry import listing, supported_models
from qdrant_rerank.hub.specs import ModelSpec

__all__ = ["models"]

SIZES = ("fp32", "fp16", "int8")
WIDE = 100  # columns of a terminal that has room for descriptions

cache_option = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False),
    help="Where downloads are kept; else QDRANT_RERANK_CACHE, else the hub's own cache.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="auto",
    show_default=True,
    help="Which file of the model; auto is the one it is registered with.",
)
revision_option = click.option("--revision", help="A branch, tag or commit of the repository.")


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which files of a model."""
    for option in (cache_option, revision_option, precision_option):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the cross-encoders known by name; fetch, check and remove their files."""
    if context.invoked_subcommand is None:
        show_models(as_json)
    elif as_json:
        raise InvalidInputError("--json goes after the command: models list --json.")


@models.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the cross-encoders known by name."""
    show_models(as_json)


def show_models(as_json: bool) -> None:
    """Print the registry; a terminal of 80 columns holds all but the descriptions."""
    listed = [listing(spec) for spec in supported_models()]
    if as_json:
        print_json(listed)
        return
    output = console()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for precision in SIZES:
        table.add_column(precision, justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("license", no_wrap=True)
    if output.width >= WIDE:
        table.add_column("description")
    for item in listed:
        row = [
            item["model"],
            *(_megabytes(item["precisions"].get(precision)) for precision in SIZES),
            f"{item['max_length']:,}" if item["max_length"] else "",
            item["license"],
            item["description"],
        ]
        table.add_row(*map(Text, row[: len(table.columns)]))
    output.print(table)
    restricted = {item["license"] for item in listed if not item["commercial_use"]}
    notes = [f"{license}: not for commercial use." for license in sorted(restricted)]
    output.print(Text(" ".join(["Sizes in MB.", *notes, "--json says more."])))


def _megabytes(file: dict[str, Any] | None) -> str:
    if not file or not file["size_in_GB"]:
        return ""
    size = file["size_in_GB"] * 1000
    return f"{size:,.0f}" if size >= 10 else f"{size:.1f}"


@models.command("pull")
@click.argument("name")
@file_options
@click.option("--force", is_flag=True, help="Fetch the files again though they are there.")
@click.option("--update", is_flag=True, help="Move on to the newest commit of the default branch.")
@json_option
def pull_command(
    name: str,
    precision: Precision,
    revision: str | None,
    cache_dir: str | None,
    force: bool,
    update: bool,
    as_json: bool,
) -> None:
    """Fetch the model NAME and check its files.

    A model stays at the commit that was first fetched, until --update.
    """
    from qdrant_rerank.hub.locate import wanted_of
    from qdrant_rerank.hub.snapshots import obtain

    spec = fetchable(name)
    wanted = wanted_of(spec, precision=precision, revision=revision, cache_dir=cache_dir)
    found = obtain(wanted, force=force, update=update)
    size = sum(path.stat().st_size for path in found.files)
    license = spec.license or found.listing.license
    if as_json:
        print_json(
            {
                "model": spec.model,
                "repository": wanted.repository.name,
                "commit": found.commit,
                "path": str(found.root),
                "bytes": size,
                "license": license,
            }
        )
        return
    click.echo(
        f"{spec.model}: {counted(len(found.files), 'file')}, {size / 1e6:,.1f} MB, checked. "
        f"Licence: {license or 'not stated'}.\n{found.root}"
    )


@models.command("verify", short_help="Compare the files of the model NAME with those published.")
@click.argument("name")
@file_options
@json_option
def verify_command(
    name: str,
    precision: Precision,
    revision: str | None,
    cache_dir: str | None,
    as_json: bool,
) -> None:
    """Read the files of the model NAME and compare them with what was published.

    Makes no request. Exit code 2 where a file differs.
    """
    from qdrant_rerank.hub.integrity import check_file
    from qdrant_rerank.hub.locate import wanted_of
    from qdrant_rerank.hub.snapshots import find, with_data

    wanted = wanted_of(fetchable(name), precision=precision, revision=revision, cache_dir=cache_dir)
    found = find(wanted)
    if found is None:
        raise ModelFileError(absent(wanted.repository.name, wanted.pull))
    rows: list[dict[str, Any]] = []
    damage = ""
    try:
        found = with_data(found) or found
    except ModelFileError as error:  # so damaged that it cannot say what else it reads
        damage = str(error)
    for path, expected in found.files.items():
        try:
            check_file(path, expected)
            state = "whole" if expected.wanted else "no digest is known"
        except ModelFileError as error:
            damage, state = str(error), "damaged"
        file = path.relative_to(found.root).as_posix()
        rows.append({"file": file, "digest": expected.wanted, "state": state})
    if as_json:
        print_json({"commit": found.commit, "files": rows})
    else:
        table = Table("file", "published digest", "state", box=box.SIMPLE)
        for row in rows:
            table.add_row(row["file"], (row["digest"] or "")[:12], row["state"])
        console().print(table)
    if damage:
        raise BadInput(f"{damage} Fetch it again: {wanted.pull} --force")


@models.command("rm", short_help="Remove the model NAME from the cache.")
@click.argument("name")
@cache_option
def rm_command(name: str, cache_dir: str | None) -> None:
    """Remove the model NAME from the cache: its repositories, whoever fetched what of them."""
    from huggingface_hub import scan_cache_dir

    from qdrant_rerank.hub.cache import cache_directory

    spec = fetchable(name)
    cache = cache_directory(cache_dir)
    sources = [file.source for file in spec.files] + [spec.sources]
    names = {source.hf for source in sources if source is not None}
    held = scan_cache_dir(cache) if cache.is_dir() else None
    repositories = [repo for repo in held.repos if repo.repo_id in names] if held else []
    if held is None or not repositories:
        raise ModelFileError(f"{spec.model} is not in the cache {cache}; nothing was removed.")
    commits = [revision.commit_hash for repo in repositories for revision in repo.revisions]
    strategy = held.delete_revisions(*commits)
    strategy.execute()
    removed = " and ".join(sorted(repo.repo_id for repo in repositories))
    click.echo(f"Removed {removed}, {strategy.expected_freed_size / 1e6:,.1f} MB.")


@models.command("path")
@click.argument("name")
@file_options
def path_command(
    name: str, precision: Precision, revision: str | None, cache_dir: str | None
) -> None:
    """Print the directory of the model NAME. Makes no request."""
    from qdrant_rerank.hub.locate import find_spec, wanted_of
    from qdrant_rerank.hub.snapshots import find

    spec = find_spec(name)
    if spec is None:
        click.echo(Path(name).expanduser().absolute())
    elif spec.sources is None:
        click.echo(spec.directory)
    else:
        wanted = wanted_of(spec, precision=precision, revision=revision, cache_dir=cache_dir)
        found = find(wanted)
        if found is None:
            raise ModelFileError(absent(wanted.repository.name, wanted.pull))
        click.echo(found.root)


def fetchable(name: str) -> ModelSpec:
    """The model of a name that has files in the hub's cache.

    Raises:
        InvalidInputError: it is bundled, or a path.
        UnknownModelError: no such name.
    """
    from qdrant_rerank.hub.locate import find_spec

    spec = find_spec(name)
    if spec is None:
        raise InvalidInputError(f"{name} is a path; expected the name of a model on the hub.")
    if spec.sources is None:
        raise InvalidInputError(
            f"{spec.model} ships with the package, in {spec.directory}; expected "
            "the name of a model on the hub."
        )
    return spec


def absent(repository: str, pull: str) -> str:
    """The message for a model that is not, or not wholly, in the cache."""
    return f"{repository} is not complete in the cache. Fetch it: {pull}"
