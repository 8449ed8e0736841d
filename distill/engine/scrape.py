"""Where metrics are found: at a port of this machine, or in a file for node_exporter's textfile collector."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from distill.engine.exposition import CONTENT_TYPE
from distill.errors import InputError
from distill.io import write_text

__all__ = ["exposed"]

_FIELD = "--metrics"
_EVERY_S = 5.0
_REQUEST_S = 5.0
_HERE = "127.0.0.1"


@contextlib.asynccontextmanager
async def exposed(text: Callable[[], str], where: str) -> AsyncGenerator[str]:
    """Keep `text()` where a scraper finds it until the block ends; gives the address or path.

    Args:
        where: `PORT` serves on this machine only, `HOST:PORT` on the interface it names; a path that ends in `.prom`
            is rewritten every five seconds, and once more at the end.

    Raises:
        InputError: it is none of these, or cannot be had.
    """
    if where.endswith(".prom"):
        path = Path(where)
        _write(path, text(), first=True)
        task = asyncio.create_task(_rewrite(path, text))
        try:
            yield str(path)
        finally:
            task.cancel()
            _write(path, text())
        return
    host, port = _address(where)
    try:
        server = await asyncio.start_server(lambda reader, writer: _reply(reader, writer, text), host, port)
    except OSError as error:
        raise InputError(
            f"{where} cannot be had: {error.strerror or error}", field=_FIELD, hint="name another port"
        ) from None
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def _address(where: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise InputError(
            f"neither a port nor a file: {where!r}", field=_FIELD, hint="for example 9464, 0.0.0.0:9464 or run.prom"
        )
    return host.strip("[]") or _HERE, int(port)


async def _rewrite(path: Path, text: Callable[[], str]) -> None:
    while True:
        await asyncio.sleep(_EVERY_S)
        _write(path, text())


def _write(path: Path, text: str, *, first: bool = False) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        # A run goes on without its metrics, but not without saying at its start that there will be none.
        if first:
            raise InputError(f"cannot be written: {error.strerror}", path=path, field=_FIELD) from None


async def _reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: Callable[[], str]) -> None:
    """One request, one reply."""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_REQUEST_S):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target = [*head.split(b" ", 2), b"", b""][:2]
            if method not in (b"GET", b"HEAD"):
                status, body = "405 Method Not Allowed", ""
            elif target.partition(b"?")[0] not in (b"/metrics", b"/"):
                status, body = "404 Not Found", ""
            else:
                status, body = "200 OK", text()
            data = body.encode()
            writer.write(
                f"HTTP/1.1 {status}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {len(data)}\r\n"
                "connection: close\r\n\r\n".encode()
                + (data if method == b"GET" else b"")
            )
            await writer.drain()
    writer.close()
