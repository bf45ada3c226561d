"""``qdrant-rerank models``: list, pull, verify, rm and path of the models on this machine."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from qdrant_rerank.cli.options import json_option
from qdrant_rerank.cli.output import BadInput, console, counted, print_json, print_table, say
from qdrant_rerank.errors import InvalidInputError, ModelFileError
from qdrant_rerank.hub.precision import Precision
from qdrant_rerank.hub.registry import listing, supported_models
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, TRUNK_EMBEDDER, ModelSpec
from qdrant_rerank.utils.languages import LANGUAGES
from qdrant_rerank.utils.rendering import Column, Table

__all__ = ["models"]

SIZES = ("fp32", "fp16", "int8")
WIDE = 100  # columns of a terminal that has room for descriptions

cache_option = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False),
    help="Folder of downloads; else QDRANT_RERANK_CACHE, else the hub's own cache.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="auto",
    show_default=True,
    help="Which file of the model; auto takes the registered one.",
)
revision_option = click.option("--revision", help="Branch, tag or commit of the repository.")


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which files of a model."""
    for option in (cache_option, revision_option, precision_option):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List, fetch, check and remove cross-encoders."""
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
    """Print the registry; 80 columns have room for all but descriptions and sizes of fp16 files."""
    listed = [listing(spec) for spec in supported_models()]
    if as_json:
        print_json(listed)
        return
    wide = console().width >= WIDE
    sizes = SIZES if wide else tuple(size for size in SIZES if size != "fp16")
    columns: list[Column | str] = [
        Column("model", "name"),
        *sizes,
        "tokens",
        "lang",
        Column("license", "name"),
        Column("description"),
    ]
    if not wide:
        columns.pop()
    rows = [
        (
            item["model"],
            *(_megabytes(item["precisions"].get(precision)) for precision in sizes),
            f"{item['max_length']:,}" if item["max_length"] else "",
            " ".join("many" if code == "multilingual" else code for code in item["languages"]),
            item["license"],
            item["description"],
        )[: len(columns)]
        for item in listed
    ]
    print_table(Table(columns, rows, gap=1, rule=False))
    restricted = {item["license"] for item in listed if not item["commercial_use"]}
    notes = [f"{license}: not for commercial use." for license in sorted(restricted)]
    say(" ".join(["Sizes in MB.", *notes, "--json prints more."]))
    say(f"Bundled embedders (--embedder), English: {DEFAULT_EMBEDDER}, {TRUNK_EMBEDDER}.")
    say(f"BM25 has {len(LANGUAGES)} languages (--language).")


def _megabytes(file: dict[str, Any] | None) -> str:
    if not file or not file["size_in_GB"]:
        return ""
    size = file["size_in_GB"] * 1000
    return f"{size:,.0f}" if size >= 10 else f"{size:.1f}"


@models.command("pull")
@click.argument("name")
@file_options
@click.option("--force", is_flag=True, help="Fetch the files again, even if they are there.")
@click.option("--update", is_flag=True, help="Fetch the newest commit of the default branch.")
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

    A model stays at the commit that was first fetched, until --update is given.
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
    say(
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
    """Read the files of the model NAME and compare them with those published.

    Makes no request. Exit code 2 if a file differs.
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
    except ModelFileError as error:  # too damaged to say which other files it reads
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
        columns = (Column("file"), Column("published digest", "name"), Column("state", "name"))
        cells = [(row["file"], (row["digest"] or "")[:12], row["state"]) for row in rows]
        print_table(Table(columns, cells))
    if damage:
        raise BadInput(f"{damage} Fetch it again: {wanted.pull} --force")


@models.command("rm", short_help="Remove the model NAME from the cache.")
@click.argument("name")
@cache_option
def rm_command(name: str, cache_dir: str | None) -> None:
    """Remove the model NAME from the cache: all files of its repositories.

    This includes files that other programs have fetched.
    """
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
    say(f"Removed {removed}, {strategy.expected_freed_size / 1e6:,.1f} MB.")


@models.command("path")
@click.argument("name")
@file_options
def path_command(
    name: str, precision: Precision, revision: str | None, cache_dir: str | None
) -> None:
    """Print the directory of the model NAME. Makes no request.

    Of a bundled model that shares a directory with another, print its ONNX file.
    """
    from qdrant_rerank.hub.locate import find_spec, wanted_of
    from qdrant_rerank.hub.snapshots import find

    spec = find_spec(name)
    if spec is None:
        print_path(Path(name).expanduser().absolute())
    elif spec.sources is None:
        print_path(spec.directory / spec.file().path if spec.folder else spec.directory)
    else:
        wanted = wanted_of(spec, precision=precision, revision=revision, cache_dir=cache_dir)
        found = find(wanted)
        if found is None:
            raise ModelFileError(absent(wanted.repository.name, wanted.pull))
        print_path(found.root)


def print_path(path: Path | None) -> None:
    """Print a path as it is for programs; without what could drive a terminal on one."""
    if sys.stdout.isatty():
        say(path)
    else:
        click.echo(path)


def fetchable(name: str) -> ModelSpec:
    """Return the model of a name, if its files come from the hub.

    Raises:
        InvalidInputError: the model is bundled, or the name is a path.
        UnknownModelError: there is no such name.
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
    """Write the message for a model that is not complete in the cache."""
    return f"{repository} is not complete in the cache. Fetch it: {pull}"
