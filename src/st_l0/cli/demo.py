"""The command that shows a model or an index in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from st_l0.cli.app import TrustRemoteCode, app, say


@app.command()
def demo(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|INDEX", help="An index, embedded or opensearch://HOST:PORT/NAME; or a model alone."
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Where to listen; by default only this machine can reach it.")
    ] = "127.0.0.1",
    model: Annotated[
        str | None, typer.Option("--model", help="Instead of the model that the index names.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Try a model or an index in the browser; the same as a JSON API (/openapi.json)."""
    from st_l0.errors import require

    for library in ("starlette", "uvicorn"):
        require(library, "demo")
    from st_l0.demo.app import LOOPBACK, is_loopback, listen, make_app, make_server
    from st_l0.demo.opening import open_demo

    with listen(host, port) as listening:
        opened = open_demo(target, model, trust_remote_code=trust_remote_code)
        local = is_loopback(host)
        if not local:
            say(f"{host}: everyone who reaches this address can search; there is no password")
        taken = listening.getsockname()[1]
        say(f"http://{f'[{host}]' if ':' in host else host}:{taken}/  (Ctrl-C ends it)")
        try:
            make_server(make_app(opened, LOOPBACK if local else None)).run(sockets=[listening])
        except KeyboardInterrupt:  # the usual end
            typer.echo(err=True)
