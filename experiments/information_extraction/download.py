"""A real set of triples, from where its makers keep it, checked before it is kept."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import rich

from experiments.downloads import DataError as DownloadError
from experiments.downloads import cache_directory, download
from experiments.information_extraction import data


class Set(NamedTuple):
    """Files of a set, and who may use them for what."""

    url: str
    """Of the directory they lie in, at one commit."""
    sha256: dict[str, str]
    """Of each file."""
    terms: str


#: 5,019, 500 and 703 sentences with the places of subjects and objects.
SETS = {
    "webnlg": Set(
        "https://raw.githubusercontent.com/yubowen-ph/JointER/69f5eb04a8457ac300081079e6edf9ff8efe61e8/dataset/WebNLG/data/",
        {
            "train.json": "4f5ce8e7da12ce3e4902058641c7c136479ac40adfaa3db4db35376575589025",
            "dev.json": "805ed37a638a9f796d2c54dbef1386db8ed91c92707418ba58c11bc25fa36cf7",
            "test.json": "b95ae56210e5dc311fb2d195df671a5a0d39f714d89b5c05363fae8933c488a8",
        },
        "WebNLG 2017, CC BY-NC-SA 4.0 (research, not commerce; with attribution), as JointER has prepared it",
    )
}


@dataclass(frozen=True)
class Download:
    """Fetches a set of texts with triples; what is there already is not fetched again."""

    name: Literal["webnlg"] = "webnlg"
    """Which one."""
    out: Path | None = None
    """Directory for its files; one in the user's cache without it."""


def fetch(config: Download) -> Path:
    """Fetches the files that are not there, or not what they should be; returns their directory, for ``--train``.

    Raises:
      DataError: if a file cannot be had, or is not the one whose checksum stands here; those before it are kept.
    """
    found = SETS[config.name]
    directory = config.out or cache_directory() / config.name
    rich.print(f"{config.name}: {found.terms}")
    for name, sha256 in found.sha256.items():
        path = directory / name
        if not (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256):
            try:
                download(found.url + name, sha256, path)
            except (OSError, DownloadError) as error:
                raise data.DataError(
                    f"{config.name} could not be had ({error}). Put {', '.join(found.sha256)} of {found.url} into a"
                    " directory by other means, and give that as --train."
                ) from error
    return directory
