"""Download from the model hub over plain HTTP, resumed by byte range.

`HF_ENDPOINT` names another hub, `HF_HUB_OFFLINE=1` skips it, as in the hub's own client.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx

from distill.models.catalogue import File, Hub

__all__ = ["Unavailable", "download"]

# A machine without the hub must learn so in seconds; a slow line may still take its time for the body.
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class Unavailable(Exception):
    """This source does not have the file; the next may. The text is for the user."""


def download(
    source: Hub,
    file: File,
    place: Path,
    progress: Callable[[int], None],
    *,
    transport: httpx.BaseTransport | None = None,
) -> None:
    """Write `file` to `place`; what an earlier attempt left there is continued. The caller checks the hash.

    Raises:
        Unavailable: offline, unreachable, refused, or broken off.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on"):
        raise Unavailable("model hub: HF_HUB_OFFLINE is set")
    url = f"{_endpoint()}/{source.repository}/resolve/{source.revision}/{file.name}"
    place.parent.mkdir(parents=True, exist_ok=True)
    have = place.stat().st_size if place.is_file() else 0
    if have >= file.size:  # complete and wrong, or the caller would not ask
        place.unlink()
        have = 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with (
            httpx.Client(timeout=_TIMEOUT, follow_redirects=True, transport=transport) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code not in (200, 206):
                raise Unavailable(f"model hub: HTTP {response.status_code} for {source.repository}/{file.name}")
            with place.open("ab" if response.status_code == 206 else "wb") as out:
                for chunk in response.iter_bytes(1 << 20):
                    out.write(chunk)
                    if out.tell() > file.size:
                        break  # not our file: the hash check says so
                    progress(out.tell())
    except httpx.HTTPError as error:
        raise Unavailable(f"model hub: {type(error).__name__}: {error}") from None


def _endpoint() -> str:
    from huggingface_hub import constants  # the default address is theirs to know

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
