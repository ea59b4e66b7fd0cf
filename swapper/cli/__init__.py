"""The command line. Every command imports what it needs itself, so that `--help` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from swapper import __version__
from swapper.cli.client import Client

INTERRUPTED = 130  # what shells say of a program that Ctrl-C ended


class _Commands(click.Group):
    """Lists its commands as they were written down; Ctrl-C ends one without a word."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(INTERRUPTED)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Commands that talk to a server use SWAPPER_URL (http://127.0.0.1:8080 if it is not set) "
    "and SWAPPER_API_KEY. They end with 0 if all went well, 1 if the server or the configuration "
    "says no (78 from `serve`), 2 if the command line is wrong, 3 if no server answers.",
)
@click.version_option(__version__, prog_name="swapper")
def main() -> None:
    """One endpoint for every language model on this machine."""


@main.command()
@click.argument("source", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("-l", "--listen", metavar="HOST:PORT", help="Listen here, whatever the file says.")
@click.option("-w", "--watch", is_flag=True, help="Reload when the configuration file changes.")
def serve(source: Path | None, config: Path | None, listen: str | None, watch: bool) -> None:
    """Serve the models of a configuration, or of a folder.

    A FOLDER serves every GGUF and every folder of safetensors in it. With neither, the demo models that
    come with swapper are served.
    """
    if source is not None and config is not None:
        raise click.UsageError("name a FOLDER or a --config file, not both")
    from swapper.cli.serve import run_server

    sys.exit(run_server(config or source, listen, watch))


@main.command()
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option("-s", "--system", help="System prompt.")
@click.option("-t", "--temperature", type=float, help="0 for the likeliest answer.")
@click.option("-n", "--max-tokens", type=click.IntRange(1), help="Longest answer.")
def run(
    model: str,
    prompt: tuple[str, ...],
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
) -> None:
    """Chat with MODEL in the terminal.

    With a PROMPT it is answered and that is all; what is piped in is added to it. Without one you
    can talk: Ctrl-C stops an answer, /clear forgets the talk, Ctrl-D ends it.
    """
    from swapper.cli.chat import Chat, converse, piped_text

    sampling = {"temperature": temperature, "max_tokens": max_tokens}
    chat = Chat(Client.from_environment(), model, system, sampling)
    text = "\n\n".join(part for part in (" ".join(prompt), piped_text()) if part)
    if text:
        chat.say(text)
    elif sys.stdin.isatty():
        converse(chat)
    else:
        raise click.UsageError("there is nothing to ask: no PROMPT, and nothing is piped in")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
def ps(as_json: bool) -> None:
    """Show what is loaded, what it takes and who waits."""
    from swapper.cli.tables import print_json, print_running

    running = Client.from_environment().get("/running")
    (print_json if as_json else print_running)(running)


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
def list_models(as_json: bool) -> None:
    """Show every model that can be asked for."""
    from swapper.cli.tables import print_json, print_models

    models = Client.from_environment().get("/v1/models")
    (print_json if as_json else print_models)(models)


@main.command()
@click.argument("model", required=False)
@click.option("--all", "every", is_flag=True, help="Every model.")
def stop(model: str | None, every: bool) -> None:
    """Unload MODEL. Answers in flight are finished first."""
    if every == (model is not None):
        raise click.UsageError("name a MODEL, or say --all")
    if model is None:
        Client.from_environment().post("/api/models/unload", {})
        click.echo("every model is unloaded")
    else:
        _act(model, "unload")
        click.echo(f"{model} is unloaded")


@main.command()
@click.argument("model")
def sleep(model: str) -> None:
    """Put MODEL to sleep: it gives its GPU memory back and wakes quickly.

    Answers in flight are finished first. The next request wakes it; the memory goes to whoever asks first.
    Models of the paged engine can; `swapper stop` unloads any.
    """
    _act(model, "sleep")
    click.echo(f"{model} sleeps")


@main.command()
@click.argument("model")
def pin(model: str) -> None:
    """Keep MODEL, once it is loaded, from being moved out for others.

    Until `swapper unpin MODEL`, or until swapper starts anew: `pin: true` in the configuration stays.
    """
    _act(model, "pin")
    click.echo(f"{model} is pinned")


@main.command()
@click.argument("model")
def unpin(model: str) -> None:
    """Let MODEL be moved out for others, also where the configuration pins it."""
    _act(model, "unpin")
    click.echo(f"{model} is not pinned")


def _act(model: str, action: str) -> None:
    from urllib.parse import quote

    Client.from_environment().post(f"/swapper/v1/models/{quote(model, safe='')}/{action}", {})


@main.command()
@click.argument("model", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
def logs(model: str | None, follow: bool) -> None:
    """Show what workers wrote: MODEL's, or everybody's."""
    from urllib.parse import urlencode

    query = urlencode({"model": model} if model else {}) + ("&follow=1" if follow else "")
    for line in Client.from_environment().lines("GET", f"/logs?{query}"):
        click.echo(line)


@main.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
def why(model: str | None, as_json: bool) -> None:
    """Tell why MODEL was loaded, moved out or refused: the decision log."""
    from urllib.parse import urlencode

    from swapper.cli.tables import print_decisions, print_json

    query = urlencode({"model": model} if model else {})
    decisions = Client.from_environment().get(f"/swapper/v1/decisions?{query}")
    (print_json if as_json else print_decisions)(decisions)


@main.command()
def reload() -> None:
    """Read the server's configuration anew. Unchanged models go on, streams included."""
    told = Client.from_environment().post("/swapper/v1/reload", {})
    changes = [f"{what}: {', '.join(names)}" for what, names in told.items() if names]
    click.echo("; ".join(changes) or "nothing has changed")


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option(
    "--schema", is_flag=True, help="Print the JSON schema of a configuration, for editors."
)
def check(config: Path | None, schema: bool) -> None:
    """Say what CONFIG (a file or folder) would do, or all that is wrong with it."""
    from swapper.cli.check import print_schema, report

    if schema:
        return print_schema()
    if config is None:
        raise click.UsageError("name a configuration file or a folder of models")
    sys.exit(report(config))


@main.command("import")
@click.argument("source", metavar="SOURCE")
@click.option(
    "-o", "--output", default="config.yaml", metavar="FILE", help="Write here; - for the terminal."
)
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it is there.")
def import_(source: str, output: str, force: bool) -> None:
    """Make a configuration from another tool's models.

    SOURCE is llama-swap, ollama, lm-studio or huggingface, each looked for where it keeps its things;
    or a llama-swap configuration, an Ollama store, or any folder of models. The source is only read.
    What cannot be carried over is a comment in FILE, and is listed.
    """
    from swapper.cli.importing import import_source

    sys.exit(import_source(source, output, force))


_added_to = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default="config.yaml",
    help="Add it to this file; made if it is not there.",
)


@main.command()
@click.argument("repository", metavar="REPO[:QUANT|/FILE]")
@click.option("--as", "name", metavar="NAME", help="What clients shall call it.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where models are kept.",
)
@_added_to
@click.option("--no-config", is_flag=True, help="Only fetch; print what a configuration would say.")
@click.option("--revision", help="A branch, tag or commit; else the newest.")
def pull(
    repository: str,
    name: str | None,
    folder: Path | None,
    config: Path,
    no_config: bool,
    revision: str | None,
) -> None:
    """Fetch a model from the Hugging Face hub and add it to a configuration.

    ORG/NAME takes Q4_K_M, or what is nearest, of a repository of GGUFs, and all of one of safetensors.
    What was broken off goes on where it ended. HF_TOKEN and HF_ENDPOINT are respected.
    """
    from swapper.cli.pull import pull_model

    pull_model(repository, name, folder, None if no_config else config, revision)


@main.command()
@click.argument("name")
@click.option(
    "-f",
    "--file",
    "modelfile",
    type=click.Path(path_type=Path),
    default="Modelfile",
    help="The Modelfile.",
)
@_added_to
def create(name: str, modelfile: Path, config: Path) -> None:
    """Add a model to a configuration as an Ollama Modelfile describes it.

    FROM is a GGUF file, a safetensors folder, or a model of the configuration; where parameters of
    requests and a system prompt are all that is new, it becomes an alias, and nothing is loaded twice.
    """
    from swapper.cli.create import create_model

    create_model(name, modelfile, config)


@main.command("install-service")
@click.option("--user", "is_user", is_flag=True, help="For you alone, without root.")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="What it shall serve.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Print the files instead of writing them.")
def install_service(is_user: bool, config: Path | None, is_dry: bool) -> None:
    """Write systemd's unit files for this installation, and say what they do.

    CONFIG is /etc/swapper/config.yaml, or ~/.config/swapper/config.yaml with --user, if none is named.
    Nothing is started.
    """
    from swapper.cli.service import install_service as install

    sys.exit(install(config, is_user=is_user, is_dry=is_dry))


def _numbers(ctx: click.Context, param: click.Parameter, text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise click.BadParameter(f"'{text}' is no list of numbers; write 1,4,16")
    return found


@main.command()
@click.argument("url")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "-c",
    "--concurrency",
    default="1,4,16",
    callback=_numbers,
    help="Clients at once.",
    metavar="N,N",
)
@click.option("-r", "--rounds", type=click.IntRange(1), default=4, help="Questions of each client.")
@click.option("-n", "--max-tokens", type=click.IntRange(1), default=128, help="Longest answer.")
@click.option(
    "-p", "--prompt", default="Tell me a long story about the sea.", help="What is asked."
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    default="swapper-bench.html",
    help="The page with plots.",
)
@click.option("--no-html", is_flag=True, help="No page.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
def bench(
    url: str,
    models: tuple[str, ...],
    concurrency: list[int],
    rounds: int,
    max_tokens: int,
    prompt: str,
    html: Path,
    no_html: bool,
    as_json: bool,
) -> None:
    """Measure any OpenAI endpoint: time to the first token, between tokens, tokens per second.

    With several MODELs they are then asked in turns, which shows what a swap costs. The key is
    SWAPPER_API_KEY.
    """
    import os

    from swapper.cli.bench import bench as run_bench

    key = os.environ.get("SWAPPER_API_KEY", "")
    page = None if no_html else html
    sys.exit(run_bench(url, models, concurrency, rounds, max_tokens, prompt, key, page, as_json))
