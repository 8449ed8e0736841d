"""The transport under both SDKs: httpx2's interface on a bare aiohttp session.

The SDKs' default pool searches all its connections for every request, so that it collapses at a few hundred
concurrent ones; aiohttp's keeps free connections by host. The other half of the cost is httpx2's own handling of
redirects, cookies and authentication flows, which a teacher never needs: `LeanClient` passes requests straight on.

What is decided here for every provider: connections are kept and not limited (the gateway limits), names are resolved
once in five minutes, redirects are not followed (a key must not travel to another host), a proxy of the environment is
honoured as the SDKs do, bodies are read whole and refused above `BODY_LIMIT`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

from distill.errors import InputError
from distill.teachers.base import Reply

__all__ = ["BODY_LIMIT", "BodyTooLarge", "LeanClient", "Transport", "WrittenOnce", "environment_proxy", "reply_of"]

BODY_LIMIT = 32 << 20
"""Bytes of a body, unpacked. A longer one is no answer."""

_HEADER_LIMIT = 65_536  # bytes of one header: policies and cookies of proxies are longer than aiohttp's 8 KiB
_HEADERS_LIMIT = 1_000
_CONNECT_S = 20.0
_IDLE_S = 15.0  # a connection idle for longer may be gone at the other end
_DNS_S = 300
_HEADERS = "distill.headers"
_REPLY = "distill.reply"
_WIRE_ONLY = frozenset({"content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive", "host"})


class BodyTooLarge(httpx2.RequestError):
    """The body is longer than `BODY_LIMIT`."""


def reply_of(response: httpx2.Response) -> Reply:
    """The reply that a response carries, from this transport or any other."""
    reply = response.extensions.get(_REPLY)
    if isinstance(reply, Reply):
        return reply
    return Reply(response.status_code, response.content, dict(response.headers.items()))


class WrittenOnce:
    """Mixin before an SDK's client class: the SDK writes the head of a request (address, headers) once, and every
    further request to the same address shares it. Writing it anew costs as much as the rest of the SDK's work.

    Right because nothing of the head varies: one key, one timeout, no options per request. Should the SDK stop calling
    this hook, it would write every head itself again, and nothing else would change.
    """

    _heads: dict[str, httpx2.Request] | None = None

    def _build_request(self, options: Any, *, retries_taken: int = 0) -> httpx2.Request:
        heads = self._heads
        if heads is None:
            heads = self._heads = {}
        head = heads.get(options.url)
        if head is None:
            # The hook of the SDK's own class, which stands behind this one.
            write = cast("Callable[..., httpx2.Request]", getattr(super(), "_build_request"))  # noqa: B009
            head = heads[options.url] = write(options, retries_taken=retries_taken)
            names = [(name, value) for name, value in head.headers.multi_items() if name not in _WIRE_ONLY]
            head.extensions[_HEADERS] = CIMultiDict(names)
        return httpx2.Request(
            head.method,
            head.url,
            headers=head.headers,
            stream=httpx2.ByteStream(options.content),
            extensions=head.extensions,
        )


class LeanClient(httpx2.AsyncClient):
    """A client that sends a request as the SDK wrote it, once. What it leaves out: redirects, cookies, authentication
    flows and event hooks."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, follow_redirects=False, trust_env=False)

    def build_request(self, method: str, url: httpx2.URL | str, **given: Any) -> httpx2.Request:
        # Given as a stream, the content gets no length of its own: the head is shared by requests of many lengths.
        return httpx2.Request(method, url, headers=given.get("headers"), stream=httpx2.ByteStream(given["content"]))

    async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
        response = await self._transport.handle_async_request(request)
        response.request = request
        await response.aread()
        return response


class Transport(httpx2.AsyncBaseTransport):
    """aiohttp behind httpx2's interface. The session opens with the first request, on the loop that runs then."""

    def __init__(self, base_url: str) -> None:
        self._proxy = environment_proxy(base_url)
        self._session: aiohttp.ClientSession | None = None
        self._known: httpx2.URL | None = None
        self._url = URL()

    def _open(self, secure: bool) -> aiohttp.ClientSession:
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

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send once and read the whole reply.

        Raises:
            httpx2.RequestError: no whole reply came; `BodyTooLarge` when it is too long.
        """
        if request.url is not self._known:
            self._known, self._url = request.url, URL(str(request.url), encoded=True)
        url = self._url
        if self._session is None:
            self._session = self._open(url.scheme == "https")
        try:
            async with self._session.request(
                request.method,
                url,
                data=await request.aread(),
                headers=request.extensions.get(_HEADERS) or request.headers.multi_items(),
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
        extensions = {_REPLY: Reply(reply.status, body, headers)}
        return httpx2.Response(reply.status, headers=headers, content=body, extensions=extensions)

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


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
