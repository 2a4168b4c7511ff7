"""Downloads from a server on this machine: checked before they are kept, and nothing is kept that is wrong.

Violations planted for these tests, each of which failed: a file that is kept before its sum is looked at; one that is
there already and is not looked at; an address without https.
"""

import functools
import gzip
import hashlib
import http.server
import io
import json
import threading
import urllib.request
import urllib.response

import pytest

from experiments import downloads
from experiments.downloads import DataError, download
from experiments.information_extraction import data
from experiments.information_extraction import download as sets

CONTENT = b"what is wanted" * 20
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a directory, and no word about it."""

    def log_message(self, *_):
        pass


def opener(content, sent_to=None):
    """What opens any address with this content, sent on to another address if one is given."""
    return lambda url, timeout: urllib.response.addinfourl(io.BytesIO(content), {}, sent_to or url)


@pytest.fixture
def served(tmp_path):
    """A directory whose files a server gives out, and what opens ``https://example.org/`` there."""
    directory = tmp_path / "served"
    directory.mkdir()
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        asked = []

        def open_url(url, timeout):
            asked.append(url)
            # The server has no certificate: of the way to it, this alone is not that of a real download.
            here = url.replace("https://example.org/", f"http://127.0.0.1:{server.server_port}/")
            return urllib.response.addinfourl(urllib.request.urlopen(here, timeout=timeout), {}, url)

        yield directory, open_url, asked
        server.shutdown()
        thread.join()


def test_a_download_is_checked_before_it_is_kept(served, tmp_path):
    directory, open_url, _ = served
    files = {
        "good": CONTENT,
        "good.gz": gzip.compress(CONTENT),
        "other": CONTENT[:-1],
        "other.gz": gzip.compress(CONTENT[:-1]),
        "page.gz": b"<html>",
        "half.gz": gzip.compress(CONTENT)[:-3],
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    destination = tmp_path / "cache" / "file"
    for name, message in (
        ("other", "not the expected one"),
        ("other.gz", "not the expected one"),
        ("page.gz", "not a gzip file"),
        ("half.gz", "cut off"),
    ):
        with pytest.raises(DataError, match=message):
            download(f"https://example.org/{name}", SHA256, destination, open_url)
    with pytest.raises(DataError, match="https only"):
        download("http://example.org/good", SHA256, destination, open_url)
    with pytest.raises(DataError, match="https only; got http://other"):
        download("https://example.org/good", SHA256, destination, opener(CONTENT, "http://other/good"))
    with pytest.raises(OSError, match="404"):
        download("https://example.org/absent", SHA256, destination, open_url)
    assert not destination.parent.exists()
    for name in ("good", "good.gz"):
        assert download(f"https://example.org/{name}", SHA256, destination, open_url) == destination
        assert destination.read_bytes() == CONTENT
        assert list(destination.parent.iterdir()) == [destination]
        destination.unlink()


def test_what_is_too_large_is_refused(tmp_path, monkeypatch):
    """Before it is decompressed, and after."""
    monkeypatch.setattr(downloads, "MAXIMAL_NUM_BYTES", 1000)
    bomb = gzip.compress(b"\0" * 100_000)
    assert len(bomb) < 1000
    with pytest.raises(DataError, match="when decompressed"):
        download("https://example.org/x.gz", "", tmp_path / "x", opener(bomb))
    for name in ("x", "x.gz"):
        with pytest.raises(DataError, match="more than 1000 bytes"):
            download(f"https://example.org/{name}", "", tmp_path / "x", opener(bytes(1001)))


def test_a_set_of_triples_is_fetched_once_and_read(served, tmp_path, monkeypatch):
    directory, open_url, asked = served
    record = {"tokens": ["Ada", "wed", "Bob"], "spo_list": [["Ada", "wed", "Bob"]]}
    record["spo_details"] = [[0, 1, "P", "wed", 2, 3, "P"]]
    parts = {name: json.dumps([record] * count).encode() for name, count in (("train.json", 3), ("dev.json", 1))}
    parts["test.json"] = json.dumps([record] * 2).encode()
    for name, content in parts.items():
        (directory / name).write_bytes(content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    monkeypatch.setitem(sets.SETS, "webnlg", sets.Set("https://example.org/", sums, "free"))
    monkeypatch.setattr(sets, "download", functools.partial(download, open_url=open_url))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = sets.Download()
    found = sets.fetch(config)
    assert found == tmp_path / "cache" / "jaxlab" / "webnlg"
    split = data.load(found, None, None, 0, False)
    assert [len(part) for part in split[:3]] == [3, 1, 2]
    assert split.train[0].mentions[0].object == (8, 11)
    assert sets.fetch(config) == found
    assert len(asked) == 3, "what is there is not fetched again"
    (found / "dev.json").write_bytes(b"[]")
    sets.fetch(config)
    assert (found / "dev.json").read_bytes() == parts["dev.json"], "what is damaged is"
    (directory / "test.json").write_bytes(b"[]")
    with pytest.raises(data.DataError, match=r"webnlg could not be had .*not the expected one.*give that as --train"):
        sets.fetch(sets.Download(out=tmp_path / "other"))
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["dev.json", "train.json"]
    (directory / "test.json").unlink()
    with pytest.raises(data.DataError, match="404"):
        sets.fetch(sets.Download(out=tmp_path / "other"))


def test_the_addresses_are_by_https_and_of_one_commit():
    for found in sets.SETS.values():
        assert found.url.startswith("https://")
        assert any(len(part) == 40 for part in found.url.split("/"))
        assert all(len(sha256) == 64 for sha256 in found.sha256.values())
