"""The command `connector emulate`: runs an emulator until it is told to stop. What it emulates is `emulators`'."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from pathlib import Path  # noqa: TC003  typer reads it at run time
from typing import TYPE_CHECKING, Annotated

import typer

from connector import clock
from connector.errors import ConnectorError, Misconfigured

if TYPE_CHECKING:
    from connector.emulators import serve, tls
    from connector.emulators.options import Faults, Json, Options
    from connector.emulators.webhooks import Settings

app = typer.Typer(no_args_is_help=True)

USAGE = 2  # exit code of a usage or configuration error
FAILED = 1


@app.callback()
def emulate() -> None:
    """Run a server that behaves like an API the connector delivers to."""


@app.command()
def customerio(
    *,
    listen: Annotated[str, typer.Option(help="Address and port; port 0 takes a free one.")] = "127.0.0.1:8651",
    state: Annotated[Path | None, typer.Option(help="Keep the state in this JSON file.")] = None,
    site_id: Annotated[str | None, typer.Option(help="Track site id; without it any pair is accepted.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Track API key.")] = None,
    app_key: Annotated[str | None, typer.Option(help="App API key; without it any bearer is accepted.")] = None,
    region: Annotated[str, typer.Option(help="eu or us.")] = "eu",
    workspace_id: Annotated[int, typer.Option(help="What the region endpoint answers.")] = 100001,
    id_only: Annotated[bool, typer.Option("--id-only", help="People are identified by id alone.")] = False,
    visibility_delay: Annotated[float, typer.Option(help="Seconds between a write and its effect.")] = 0.0,
    forget_events: Annotated[int | None, typer.Option(help="List only the newest N events.")] = None,
    rate: Annotated[float | None, typer.Option(help="Track requests a second before 429.")] = None,
    error_rate: Annotated[float, typer.Option(help="Share of Track requests answered 500, 502 or 503.")] = 0.0,
    reset_rate: Annotated[float, typer.Option(help="Share of Track connections reset after applying.")] = 0.0,
    slow: Annotated[float, typer.Option(help="Seconds between applying and answering.")] = 0.0,
    redirect: Annotated[int | None, typer.Option(help="Answer every Track request with this 3xx.")] = None,
    webhook_url: Annotated[str | None, typer.Option(help="Send reporting webhooks there.")] = None,
    webhook_key: Annotated[str | None, typer.Option(help="Signing key of the webhooks.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate: serve https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key of --tls-cert.")] = None,
    tls_self_signed: Annotated[bool, typer.Option("--tls-self-signed", help="Serve https, own certificate.")] = False,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Any further knob, NAME=JSON.")] = None,
    seed: Annotated[int | None, typer.Option(help="Make chance repeatable.")] = None,
) -> None:
    """Run a Customer.io-compatible server: Track v1 and v2, App API, and a control endpoint under /_control."""
    from connector.emulators import serve
    from connector.emulators.webhooks import Settings

    flags = {name: value for name, value in locals().items() if value is not None}
    flags |= {"redirect_status": redirect, "url": webhook_url, "signing_key": webhook_key or Settings().signing_key}
    try:
        host, port = _address(listen)
        options, faults, webhooks = _settings(flags, setting or [])
        certificate = _certificate(tls_cert, tls_key, host=host, made=tls_self_signed)
        _run_until_told(
            serve.start(
                options,
                faults=faults,
                webhooks=webhooks,
                host=host,
                port=port,
                state_file=state,
                certificate=certificate,
                seed=seed,
            )
        )
    except ConnectorError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE if isinstance(error, Misconfigured) else FAILED) from error


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise Misconfigured(f"--listen {listen} is no address", hint="write it as 127.0.0.1:8651")
    return host.strip("[]"), int(port)


def _settings(flags: Json, further: list[str]) -> tuple[Options, Faults, Settings]:
    """Sort flags and `NAME=JSON` settings by the group that knows the name; `webhooks.NAME` is a webhook's."""
    from connector.emulators.options import Faults, Options, change
    from connector.emulators.webhooks import Settings

    groups: tuple[Options, Faults, Settings] = (Options(), Faults(), Settings())
    changes: tuple[Json, Json, Json] = ({}, {}, {})
    known = [{entry.name for entry in dataclasses.fields(group)} for group in groups]
    for group, names in zip(changes, known, strict=True):
        group |= {name: value for name, value in flags.items() if name in names}
    for entry in further:
        name, value = _assignment(entry)
        place = 2 if name.startswith("webhooks.") else 0 if name in known[0] else 1
        changes[place][name.removeprefix("webhooks.")] = value
    try:
        change(groups[0], changes[0])
        change(groups[1], changes[1])
        change(groups[2], changes[2])
    except ValueError as error:
        raise Misconfigured(str(error), hint="GET /_control/options and /_control/faults list every knob") from error
    return groups


def _assignment(entry: str) -> tuple[str, object]:
    name, _, source = entry.partition("=")
    try:
        return name, json.loads(source)
    except ValueError as error:
        hint = 'write NAME=JSON, as in dedup_window=60 or script=["500"]'
        raise Misconfigured(f"--set {entry} cannot be read", hint=hint) from error


def _certificate(cert: Path | None, key: Path | None, *, host: str, made: bool) -> tls.Certificate | None:
    from connector.emulators import tls

    if made:
        return tls.self_signed(now=clock.now(), host=host)
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise Misconfigured("--tls-cert and --tls-key belong together", hint="give both, or --tls-self-signed")
    return tls.Certificate(cert_file=cert, key_file=key)


def _run_until_told(running: serve.Running) -> None:
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    with running:
        typer.echo(_ready(running))
        while not told.wait(1.0):
            if not running.alive:
                raise ConnectorError("the emulator's server ended by itself", hint="look at the log lines above")


def _ready(running: serve.Running) -> str:
    options = running.workspace.options
    track = f"{options.site_id}:{options.api_key}" if options.site_id else "any site id and key, e.g. site:key"
    reader = options.app_key or "any bearer, e.g. app-key"
    trust = f", certificate {running.certificate.cert_file}" if running.certificate else ""
    return f"ready: {running.url} (Track: {track}; App: {reader}; control: {running.url}/_control/counts{trust})"
