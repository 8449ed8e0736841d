"""The connections to a provider: the SDK writes the head of a request once, aiohttp carries every one.

An SDK's request costs as much as everything else a row needs, and its default pool searches all its connections for
every request, so that it collapses at a few hundred concurrent ones. Nothing of the head varies (one address, one key,
no options per request), so the SDK is asked for it once (`written_by`); aiohttp's pool keeps free connections by host.

What is decided here for every provider: connections are kept and not limited (the gateway limits), names are resolved
once in five minutes, redirects are not followed (a key must not travel to another host), a proxy of the environment is
honoured as the SDKs do, bodies are read whole and refused above `BODY_LIMIT`.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

from distill.errors import InputError
from distill.teachers.base import Reply

__all__ = ["BODY_LIMIT", "BodyTooLarge", "Doubled", "Head", "Pool", "Sender", "environment_proxy", "written_by"]

BODY_LIMIT = 32 << 20
"""Bytes of a body, unpacked. A longer one is no answer."""

_HEADER_LIMIT = 65_536  # bytes of one header: policies and cookies of proxies are longer than aiohttp's 8 KiB
_HEADERS_LIMIT = 1_000
_CONNECT_S = 20.0
_IDLE_S = 15.0  # a connection idle for longer may be gone at the other end
_DNS_S = 300
_WIRE_ONLY = frozenset({"content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive", "host"})


class BodyTooLarge(httpx2.RequestError):
    """The body is longer than `BODY_LIMIT`."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body: what all requests to one address share."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """Names in lower case, the key among them."""


async def written_by(call: Callable[[httpx2.AsyncClient], Awaitable[object]]) -> Head:
    """The head of the request that an SDK makes in `call` with the client it is given. Nothing is sent."""
    listener = _Listener()
    async with httpx2.AsyncClient(transport=listener, follow_redirects=False, trust_env=False) as client:
        await call(client)
    (request,) = listener.heard
    headers = tuple((name, value) for name, value in request.headers.multi_items() if name not in _WIRE_ONLY)
    return Head(request.method, str(request.url), headers)


class _Listener(httpx2.AsyncBaseTransport):
    """Stands in for the network, and answers nothing of interest."""

    def __init__(self) -> None:
        self.heard: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.heard.append(request)
        return httpx2.Response(200, json={}, request=request)


class Sender(Protocol):
    """How requests leave."""

    async def send(self, head: Head, content: bytes) -> Reply:
        """Send once and read the whole reply.

        Raises:
            httpx2.RequestError: no whole reply came; `BodyTooLarge` when it is too long.
        """
        ...

    async def close(self) -> None: ...


class Pool:
    """Connections of aiohttp's. They open with the requests, on the loop that runs then."""

    def __init__(self, base_url: str) -> None:
        self._proxy = environment_proxy(base_url)
        self._session: aiohttp.ClientSession | None = None
        self._head: Head | None = None
        self._url = URL()
        self._headers: CIMultiDict[str] = CIMultiDict()

    async def send(self, head: Head, content: bytes) -> Reply:
        """See `Sender`."""
        if head is not self._head:
            self._head, self._url, self._headers = head, URL(head.url, encoded=True), CIMultiDict(head.headers)
        if self._session is None:
            self._session = _open(secure=self._url.scheme == "https")
        try:
            async with self._session.request(
                head.method,
                self._url,
                data=content,
                headers=self._headers,
                allow_redirects=False,
                proxy=self._proxy,
            ) as reply:
                body = await _body(reply)
        except aiohttp.ClientResponseError as error:  # an answer that is not HTTP; the message may quote headers
            raise httpx2.RemoteProtocolError(f"not an HTTP reply (status {error.status})") from None
        except (TimeoutError, aiohttp.ServerTimeoutError):
            raise httpx2.ConnectTimeout(f"no connection within {_CONNECT_S:.0f} s") from None
        except aiohttp.ClientConnectorError as error:
            raise httpx2.ConnectError(_said(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ReadError(_said(error)) from None
        # The length and the encoding describe what was on the wire, not the unpacked body.
        headers = {key: value for name, value in reply.headers.items() if (key := name.lower()) not in _WIRE_ONLY}
        return Reply(reply.status, body, headers)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class Doubled:
    """A transport of httpx2's in the place of the network, such as its `MockTransport`."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def send(self, head: Head, content: bytes) -> Reply:
        """See `Sender`."""
        request = httpx2.Request(head.method, head.url, headers=head.headers, content=content)
        response = await self._transport.handle_async_request(request)
        return Reply(response.status_code, await response.aread(), dict(response.headers.items()))

    async def close(self) -> None:
        await self._transport.aclose()


def _open(*, secure: bool) -> aiohttp.ClientSession:
    context: ssl.SSLContext | bool = httpx2.create_ssl_context() if secure else True
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S, ttl_dns_cache=_DNS_S, ssl=context)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        auto_decompress=True,
        max_field_size=_HEADER_LIMIT,
        max_headers=_HEADERS_LIMIT,
    )


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    length = reply.content_length
    if length is not None and "Content-Encoding" not in reply.headers and length <= BODY_LIMIT:
        return await reply.read()
    parts: list[bytes] = []
    size = 0
    async for part in reply.content.iter_any():
        size += len(part)
        if size > BODY_LIMIT:
            reply.close()
            raise BodyTooLarge(f"the body is longer than {BODY_LIMIT >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"


def environment_proxy(base_url: str) -> str | None:
    """The proxy that the environment names for `base_url` (HTTPS_PROXY, ALL_PROXY, NO_PROXY, …), or None.

    Raises:
        InputError: it is not an HTTP proxy.
    """
    parts = urlsplit(base_url)
    proxies: Mapping[str, str] = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        raise InputError(
            f"only http and https proxies work, not {urlsplit(proxy).scheme}", field="the environment's proxy"
        )
    return proxy
