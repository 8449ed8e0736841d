"""The transport: whole bodies within limits, no redirects, proxies of the environment."""

from __future__ import annotations

import asyncio
import gzip

import httpx2
import pytest

from distill.errors import InputError
from distill.teachers.base import Reply
from distill.teachers.transport import BODY_LIMIT, BodyTooLarge, Head, Pool, environment_proxy, written_by


class Page:
    """A server that sends the same bytes to everybody and counts."""

    def __init__(self, data: bytes) -> None:
        self.data, self.heads = data, list[bytes]()

    @property
    def asked(self) -> int:
        return len(self.heads)

    async def __aenter__(self) -> Page:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.readexactly(len(b"{}"))
        writer.write(self.data)
        await writer.drain()
        writer.close()


async def get(url: str) -> Reply:
    pool = Pool(url)
    try:
        return await pool.send(Head("POST", url, (("accept", "application/json"),)), b"{}")
    finally:
        await pool.close()


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n".encode() + "".join(f"{line}\r\n" for line in headers).encode() + b"\r\n" + body


async def test_packed_bodies_are_unpacked() -> None:
    packed = gzip.compress(b'{"a": 1}')
    async with Page(http(packed, "Content-Encoding: gzip", f"Content-Length: {len(packed)}")) as page:
        reply = await get(page.url)
    assert reply.body == b'{"a": 1}'
    assert "content-encoding" not in reply.headers


async def test_bodies_without_a_length_are_read_to_their_end() -> None:
    async with Page(http(b'{"a": 1}', "Content-Type: application/json", "X-Two-Words: Yes")) as page:
        reply = await get(page.url)
    assert reply.body == b'{"a": 1}'
    assert reply.headers == {"content-type": "application/json", "x-two-words": "Yes"}


async def test_a_proxy_may_send_long_heads() -> None:
    heads = [f"X-{number}: {'y' * 50}" for number in range(300)]
    async with Page(http(b'{"a": 1}', f"Content-Security-Policy: {'z' * 20_000}", *heads)) as page:
        assert (await get(page.url)).body == b'{"a": 1}'


async def test_a_small_body_that_unpacks_to_a_huge_one_is_refused() -> None:
    packed = gzip.compress(bytes(BODY_LIMIT + 1))
    assert len(packed) < 100_000
    async with Page(http(packed, "Content-Encoding: gzip", f"Content-Length: {len(packed)}")) as page:
        with pytest.raises(BodyTooLarge):
            await get(page.url)


async def test_redirects_are_not_followed() -> None:
    async with Page(http(b"", "Content-Length: 0")) as elsewhere:
        moved = http(b"", f"Location: {elsewhere.url}/v1", "Content-Length: 0", status="307 Temporary Redirect")
        async with Page(moved) as page:
            assert (await get(page.url)).status == 307
        assert elsewhere.asked == 0


@pytest.mark.parametrize("data", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_what_is_no_whole_reply_is_an_error_of_the_connection(data: bytes) -> None:
    async with Page(data) as page:
        with pytest.raises(httpx2.TransportError):
            await get(page.url)


async def test_cookies_are_not_kept() -> None:
    async with Page(http(b"", "Set-Cookie: session=1", "Connection: close", "Content-Length: 0")) as page:
        pool = Pool(page.url)
        for _ in range(2):
            await pool.send(Head("POST", page.url, ()), b"{}")
        await pool.close()
    assert len(page.heads) == 2
    assert b"cookie" not in page.heads[1].lower()


async def test_an_sdk_writes_a_head_without_sending_anything() -> None:
    async def call(client: httpx2.AsyncClient) -> None:
        headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
        await client.post("http://127.0.0.1:9/v1?a=1", content=b"{}", headers=headers)

    head = await written_by(call)
    assert (head.method, head.url) == ("POST", "http://127.0.0.1:9/v1?a=1")
    assert ("authorization", "Bearer secret") in head.headers
    assert not {"content-length", "host", "connection"} & {name for name, _ in head.headers}
    assert "secret" not in repr(head)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://api.example/v1", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://api.example/v1", "http://p:3128"),
        ({"https_proxy": "p:3128"}, "https://api.example/v1", "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, "https://api.example/v1", None),
        ({"ALL_PROXY": "http://p:3128"}, "https://api.example/v1", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "api.example"}, "https://api.example/v1", None),
        ({"HTTP_PROXY": "http://p:3128", "NO_PROXY": "127.0.0.1,localhost"}, "http://127.0.0.1:8000/v1", None),
    ],
)
def test_the_proxy_of_the_environment(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear(monkeypatch)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(url) == proxy


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clear(monkeypatch)
    monkeypatch.setenv("ALL_PROXY", "socks5://user:pass@p:1080")
    with pytest.raises(InputError, match="socks5") as caught:
        environment_proxy("https://api.example/v1")
    assert "pass" not in str(caught.value)


def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
