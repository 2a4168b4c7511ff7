"""Data from the net, checked before they are kept: by https, of a size that is bounded, with a known SHA-256."""

import hashlib
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

from experiments.files import explained

MAXIMAL_NUM_BYTES = 2**26  # 64 MiB: the largest file of any experiment has 47 MB


class DataError(Exception):
    """Data that could not be had, or that are not what they should be; the message says what to do."""


def cache_directory() -> Path:
    """Where downloads are kept: below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxlab"


def download(url: str, sha256: str, destination: Path, open_url: Callable = urllib.request.urlopen) -> Path:
    """Fetches one file; nothing of it is kept, or looked at, before its content is found to be right.

    Args:
      url: an https address; what ends in ``.gz`` is decompressed.
      sha256: of the content, in hexadecimal.
      destination: gets the content, all at once.
      open_url: ``urllib.request.urlopen``, or what stands in for it.

    Returns:
      ``destination``.

    Raises:
      DataError: for an address without https, or one that leads to such an address; for content that is too large, no
        gzip file where one is wanted, or not the expected one.
      OSError: if the address cannot be read.
      RunError: if the destination cannot be written.
    """
    with open_url(only_https(url), timeout=60) as response:
        only_https(response.geturl())  # it may have been sent on to another address
        content = response.read(MAXIMAL_NUM_BYTES + 1)
    if len(content) > MAXIMAL_NUM_BYTES:
        raise DataError(f"{url}: more than {MAXIMAL_NUM_BYTES} bytes")
    if url.endswith(".gz"):
        content = decompress(content, url)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(f"{url}: the content is not the expected one (SHA-256 {found} instead of {sha256}); not kept")
    # Not write_atomically: each of several processes reads what it has fetched.
    with explained(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=destination.parent, delete=False) as file:
            try:
                file.write(content)
                file.close()
                os.replace(file.name, destination)
            except BaseException:
                os.unlink(file.name)
                raise
    return destination


def only_https(url: str) -> str:
    """The address, if nobody on the way can change what comes from it."""
    if not url.startswith("https://"):
        raise DataError(f"downloads are by https only; got {url}")
    return url


def decompress(compressed: bytes, source: str) -> bytes:
    """The content of a gzip file of at most 64 MiB, however small it was made."""
    if len(compressed) > MAXIMAL_NUM_BYTES:
        raise DataError(f"{source}: more than {MAXIMAL_NUM_BYTES} bytes")
    decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = decompressor.decompress(compressed, MAXIMAL_NUM_BYTES + 1)
    except zlib.error as error:
        raise DataError(f"{source}: not a gzip file ({error})") from error
    if len(content) > MAXIMAL_NUM_BYTES:
        raise DataError(f"{source}: more than {MAXIMAL_NUM_BYTES} bytes when decompressed")
    if not decompressor.eof:
        raise DataError(f"{source}: the gzip file is cut off")
    return content
