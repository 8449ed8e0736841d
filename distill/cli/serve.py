"""`distill serve`: releases behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.console import err, print_json, safe
from distill.cli.releases import open_registry
from distill.errors import InputError, RunError

if TYPE_CHECKING:
    from distill.release import Listed

__all__ = ["serve"]

_KEY = "DISTILL_SERVE_KEY"
_SHORTEST_KEY = 16


def serve(
    releases: Annotated[list[str], typer.Argument(help="NAME or NAME@VERSION; several adapters share their base.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 8000,
    base: Annotated[str | None, typer.Option("--base", help="The adapters' base, if it is a folder.")] = None,
    context: Annotated[
        int, typer.Option("--context", min=64, help="Tokens of prompt and answer, of GGUF files.")
    ] = 4096,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Longest answer, if a request is silent.")
    ] = 512,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help=f"Listen beyond this machine; needs a key in {_KEY}.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Serve unproven releases.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object when it listens.")] = False,
) -> None:
    """Serve releases as an OpenAI-compatible endpoint.

    A request chooses by model name. Answers are greedy unless it asks for a temperature: so they were measured. With a
    key in DISTILL_SERVE_KEY every request has to carry it.
    """
    import asyncio

    try:
        import uvicorn

        from distill.release.app import make_app
    except ImportError:
        raise InputError("serving needs starlette and uvicorn", hint="`pip install 'distill[serve]'`") from None
    from distill.release.serving import open_backends

    key = os.environ.get(_KEY) or None
    local = _is_loopback(host)
    if not local and not allow_remote:
        raise InputError(f"{host} can be reached from other machines", field="--host", hint="add --allow-remote")
    if not local and (key is None or len(key) < _SHORTEST_KEY):
        raise InputError(
            f"listening beyond this machine needs a key of {_SHORTEST_KEY} characters or more",
            field="--allow-remote",
            hint=f"set {_KEY}",
        )
    registry = open_registry()
    chosen = [registry.find(reference) for reference in releases]
    for listed in chosen:
        registry.verify(listed)
        _proven(listed, force=force)

    async def main() -> None:
        with _listening(host, port) as listener:
            async with open_backends(chosen, base=base, context=context) as backends:
                # Of `[::1]:8000` the check reads what stands before the first colon.
                hosts = ("127.0.0.1", "localhost", "[" if ":" in host else host) if local else ("*",)
                app = make_app(backends, key=key, hosts=hosts, max_tokens=max_tokens)
                config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
                url = f"http://{host}:{listener.getsockname()[1]}/v1"
                names = list(backends)
                err.print(safe(f"{url} serves {', '.join(names)}"))
                if json:
                    print_json({"url": url, "models": names, "key_needed": key is not None})
                await uvicorn.Server(config).serve(sockets=[listener])

    asyncio.run(main())


def _proven(listed: Listed, *, force: bool) -> None:
    release = listed.release
    if release.unproven is None:
        return
    if not force:
        raise InputError(f"{release.title} is unproven: {release.unproven}", hint="--force serves it all the same")
    err.print(safe(f"warning: {release.title} is unproven: {release.unproven}"))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    """Taken before anything is loaded: a port in use is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise RunError(f"{host}:{port} cannot be listened on: {error.strerror}", hint="choose another --port") from None
    return listener
