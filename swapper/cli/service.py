"""`swapper install-service`: systemd's unit files, with the paths of this machine in them."""

from __future__ import annotations

import grp
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import click

from swapper.config import Listen
from swapper.errors import ConfigError

HOMES = (Path("/home"), Path("/root"), Path("/run/user"))  # what ProtectHome hides


@dataclass(frozen=True, slots=True)
class Place:
    """Where this machine has what the units name. `groups`: those that own its GPUs."""

    program: Path
    config: Path
    listen: Sequence[Listen]
    groups: Sequence[str]
    models_in_homes: bool = False


def install_service(config: Path | None, *, is_user: bool, is_dry: bool) -> int:
    """Write the units and say what they do and what comes next; returns the exit status."""
    folder = _unit_folder(is_user)
    place = _place(config or _default_config(is_user))
    if not is_user and (_is_in_a_home(place.program) or _is_in_a_home(Path(sys.base_prefix))):
        raise click.ClickException(
            f"a service has a user of its own, who cannot run {place.program}: it or its Python lies "
            "in somebody's home; install swapper into /opt/swapper with the system's Python, or use "
            "--user"
        )
    units = rendered(place, is_user=is_user)
    if is_dry:
        for name, text in units.items():
            click.echo(f"# ---- {folder / name}\n{text}")
        return 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        hint = "" if is_user else "; use sudo, or --user for a service of your own"
        raise click.ClickException(f"cannot write to {folder}: {error.strerror}{hint}") from None
    click.echo(_explained(place, folder, is_user))
    return 0


def rendered(place: Place, *, is_user: bool) -> dict[str, str]:
    """The text of each unit by its file name."""
    scope = files("swapper") / "units" / ("user" if is_user else "system")
    service = (scope / "swapper.service").read_text(encoding="utf-8")
    path = f"PATH={place.program.parent}:/usr/local/bin:/usr/bin:/bin"
    service = _with(service, "Environment", [_quoted(path)], containing="PATH=")
    command = f"{_quoted(str(place.program))} serve --config {_quoted(str(place.config))}"
    service = _with(service, "ExecStart", [command])
    if not is_user:
        service = _with(service, "Documentation", [_escaped(place.config.as_uri())])
        groups = [" ".join(place.groups)] if place.groups else []
        service = _with(service, "SupplementaryGroups", groups)
        if place.models_in_homes:
            service = _with(service, "ProtectHome", ["read-only"])
    socket = (scope / "swapper.socket").read_text(encoding="utf-8")
    streams = [_escaped(_stream(listen)) for listen in place.listen]
    return {"swapper.service": service, "swapper.socket": _with(socket, "ListenStream", streams)}


def _with(unit: str, key: str, values: Iterable[str], containing: str = "") -> str:
    """The unit with other values for a key that it has: the first such line is where they stand."""
    line = re.compile(rf"^{key}=.*{re.escape(containing)}.*\n", re.MULTILINE)
    new = "".join(f"{key}={value}\n" for value in values)
    text, number = line.subn(lambda _: new, unit, count=1)
    assert number == 1, key
    return text


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """As one word of a unit file: see "Quoting" in systemd.syntax(7)."""
    text = _escaped(text)
    if not re.search(r"[\s\"'\\$;]", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'


def _stream(listen: Listen) -> str:
    return listen.socket_path or str(listen)


# ---------------------------------------------------------------- this machine


def _unit_folder(is_user: bool) -> Path:
    return _user_config() / "systemd" / "user" if is_user else Path("/etc/systemd/system")


def _default_config(is_user: bool) -> Path:
    return (_user_config() if is_user else Path("/etc")) / "swapper" / "config.yaml"


def _user_config() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _place(config: Path) -> Place:
    config = config.absolute()
    listen: Sequence[Listen] = (Listen("127.0.0.1", 8080),)
    in_homes = _is_in_a_home(config)
    if config.is_file():
        from swapper.config import load

        try:
            read = load(config)
        except ConfigError as error:
            raise click.ClickException(str(error)) from None
        listen = read.listen
        paths = [getattr(model.section, "path", None) for model in read.models.values()]
        in_homes |= any(_is_in_a_home(config.parent / path) for path in paths if path)
    groups = [name for name in ("video", "render") if _is_group(name)]
    return Place(_program(), config, listen, groups, in_homes)


def _program() -> Path:
    """The command beside the interpreter that runs this."""
    return Path(sys.executable).absolute().parent / "swapper"


def _is_in_a_home(path: Path) -> bool:
    return any(path.expanduser().resolve().is_relative_to(home) for home in HOMES)


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


# ---------------------------------------------------------------- words


def _explained(place: Place, folder: Path, is_user: bool) -> str:
    systemctl = "systemctl --user" if is_user else "systemctl"
    journal = "journalctl --user" if is_user else "journalctl"
    lines = [
        f"Wrote {folder}/swapper.service and swapper.socket.",
        "",
        f"  It runs        {place.program} serve --config {place.config}",
        f"  It listens on  {', '.join(map(_stream, place.listen))}; systemd holds the socket, so that"
        " a restart",
        "                 refuses nobody. What `listen` says in the configuration counts no more.",
        "  It is watched  and started anew when it dies, or hangs for 30 s.",
    ]
    if not is_user:
        lines += [
            "  It may use     GPUs, the network, and files that everybody may read; write only to",
            "                 /var/lib/swapper and /var/cache/swapper. It has a user of its own.",
        ]
    if not is_user and place.models_in_homes:
        lines += ["  It may read    /home too, for that is where models of yours are."]
    lines += ["", "Next:", ""]
    if not place.config.is_file():
        lines += [f"  write {place.config} (swapper check says whether it is right)"]
    lines += [
        f"  {systemctl} daemon-reload",
        f"  {systemctl} enable --now swapper.socket swapper.service",
        f"  {systemctl} status swapper       what is loaded, what waits",
        f"  {journal} -u swapper -f          its log",
        f"  {systemctl} reload swapper       takes a changed configuration over",
    ]
    if is_user:
        lines += ["  loginctl enable-linger            if it is to run while you are not logged in"]
    return "\n".join(lines)
