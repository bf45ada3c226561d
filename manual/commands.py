"""The reference of the command line, made from the commands themselves."""

import click

from qdrant_rerank.cli.main import main

__all__ = ["commands_page"]


def commands_page() -> str:
    """Return Markdown: each command with its arguments and options."""
    parts = [
        "# Commands",
        "[Command line](../command-line.md) shows them at work. Every command has `--help`.",
    ]
    for name, command in sorted(main.commands.items()):
        parts += _command(f"qdrant-rerank {name}", command)
    return "\n\n".join(parts) + "\n"


def _command(path: str, command: click.Command) -> list[str]:
    context = click.Context(command, info_name=path)
    pieces = " ".join(command.collect_usage_pieces(context))
    text = (command.help or "").replace("\b\n", "")
    parts = [f"## {path}", f"```text\n{path} {pieces}\n```", *map(_plain, text.split("\n\n"))]
    rows = [_row(option, context) for option in command.params if isinstance(option, click.Option)]
    if rows:
        head = "| option | default | |\n|---|---|---|\n"
        parts.append(head + "\n".join(rows))
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            parts += _command(f"{path} {name}", below)
    return parts


def _row(option: click.Option, context: click.Context) -> str:
    found = option.get_help_record(context)
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    about = _plain(option.help or "")
    if isinstance(option.type, click.Choice):
        about = f"{about} One of {', '.join(f'`{choice}`' for choice in option.type.choices)}."
    shown = option.get_default(context, call=False)
    values = shown if isinstance(shown, tuple) else (shown,)
    known = [f"`{value}`" for value in values if value not in {None, False, ""}]
    default = "" if found is None or "UNSET" in repr(shown) else ", ".join(known)
    return f"| {names} | {default} | {about} |"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
