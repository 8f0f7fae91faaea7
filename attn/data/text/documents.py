"""Documents of sentences: of installed packages, of files, or of sets of TFDS.

All of a source is held in memory.
"""

import ast
import codecs
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import pathlib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attn import settings
from attn.data import cache
from attn.data.text import babel, prepared

# A document is its sentences, in order.
Documents = dict[str, list[list[str]]]  # by split

PACKAGES = {  # and what they are called where they are installed from
    "numpy": "numpy",
    "scipy": "scipy",
    "jax": "jax",
    "flax": "flax",
    "optax": "optax",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "matplotlib": "matplotlib",
}
TRANSLATED = babel.Babel(train_size=20_000, eval_size=2000)
SPLITS = ("train", "validation", "test")
SHARES = {0: "validation", 1: "test"}  # of ten parts; the others are "train"
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z])")
_ROLE = re.compile(r":[\w:+-]+:`~?([^`<]*?)(?:\s*<[^>]*>)?`")
_PROSE = re.compile(r"[A-Z\"'(][^\n]*[.!?][\"')]?")


def read(
    source: str, packages: Sequence[str], directory: str, most: int | None
) -> tuple[Documents, dict[str, Any]]:
    """The documents of each split, and what to note of them.

    Args:
        source: "docstrings", "babel", the path of a file or folder (`files`), or the
            name of a set of TensorFlow Datasets with a "text".
        packages: whose docstrings are read.
        directory: of TFDS.
        most: documents that are read of each split; None for all.

    Raises:
        Invalid: there is no such source, or nothing in it.
    """
    if source == "docstrings":
        found, notes = docstrings(packages)
    elif source == "babel":
        found, notes = translations()
    elif is_path(source):
        found, notes = files(pathlib.Path(source).expanduser())
    else:
        texts = prepared.columns(source, directory, ("text",), most)
        found = {
            split: [sentences(text) for text in rows["text"]]
            for split, rows in texts.items()
        }
        notes = {"split": "as in TensorFlow Datasets"}
    found = {split: [d for d in docs if d][:most] for split, docs in found.items()}
    found = {split: docs for split, docs in found.items() if docs}
    if not found.get("train"):
        raise settings.Invalid(f"the text {source!r} has no documents to train on")
    return found, notes


def is_path(source: str) -> bool:
    """Whether a source is a file or folder, rather than a name."""
    beginning = source.startswith(("/", ".", "~"))
    return beginning or source.endswith(".txt") or pathlib.Path(source).exists()


def sentences(text: str) -> list[str]:
    """The sentences of running text, by the marks at their ends."""
    return [found for part in _END.split(text) if (found := " ".join(part.split()))]


def share(name: str) -> str:
    """The split of what has this name: a tenth each is for validation and test."""
    return SHARES.get(number(name) % 10, "train")


def number(name: str) -> int:
    """A number that depends on a name, and looks random."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def files(place: pathlib.Path) -> tuple[Documents, dict[str, Any]]:
    """Documents of text files: a sentence a line, a blank line between documents.

    PLACE is a file; a folder with train.txt, validation.txt and test.txt; or any other
    folder of .txt files, in it or below. Where there are no splits a tenth each
    of the documents, by a hash of what is in them, is for validation and for test.

    Raises:
        Invalid: nothing there, or a line that is not UTF-8.
    """
    named = {name: place / f"{name}.txt" for name in SPLITS}
    if named["train"].is_file():
        return {
            name: list(_blocks(path)) for name, path in named.items() if path.is_file()
        }, {"split": "by file"}
    paths = [place] if place.is_file() else sorted(_texts(place))
    if not paths:
        raise settings.Invalid(
            f"the text {str(place)!r} is no file, and no folder with .txt files"
        )
    found: Documents = {name: [] for name in SPLITS}
    for path in paths:
        for document in _blocks(path):
            found[share("\n".join(document))].append(document)
    return found, {"split": "by document"}


def lines(path: pathlib.Path, around: str | None = None) -> list[str]:
    """The lines of a text file, without white space around them.

    Args:
        path: of the file.
        around: the characters that are left out around lines instead.

    Raises:
        Invalid: no such file, or a line that is not UTF-8.
    """
    try:
        raw = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise settings.Invalid(f"{path} cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(raw[:-1] if raw[-1] == b"" else raw, start=1):
        try:
            found.append(line.decode().strip(around))
        except UnicodeDecodeError as error:
            raise settings.Invalid(
                f"line {number} of {path} is not UTF-8: byte"
                f" 0x{line[error.start]:02x} at column {error.start + 1}"
            ) from error
    return found


def docstrings(packages: Sequence[str]) -> tuple[Documents, dict[str, Any]]:
    """Running text of docstrings: of some packages that are installed anyway."""
    found, notes = by_package(packages)
    return {name: [d for _, d in docs] for name, docs in found.items()}, notes


def translations() -> tuple[Documents, dict[str, Any]]:
    """Phrases of `attn.data.text.babel`, each a document with its German translation.

    What is masked in one language can be read in the other, as in the translation
    language modelling of Lample and Conneau 2019, arXiv:1901.07291, section 3.3; and
    what follows a phrase is its translation, or that of another one.
    """
    found, notes = TRANSLATED.texts()
    return {
        name: [list(pair) for pair in zip(side.sources, side.targets, strict=True)]
        for name, side in found.items()
    }, notes


def by_package(
    packages: Sequence[str],
) -> tuple[dict[str, list[tuple[str, list[str]]]], dict[str, Any]]:
    """The documents of `docstrings`, each with the package that it is of.

    A document is a docstring's prose: examples, lists, tables and headings are left
    out, and so is what comes twice. A tenth each of the modules, by a hash of
    their names, is for validation and for test, without the sentences that training
    has too.
    """
    for name in packages:
        if name not in PACKAGES:
            raise settings.unknown("package of docstrings", name, PACKAGES)
    versions = {
        name: importlib.metadata.version(PACKAGES[name]) for name in sorted(packages)
    }
    code = pathlib.Path(__file__).read_bytes()
    make = lambda: json.dumps(_docstrings(sorted(packages))).encode()
    found = json.loads(cache.kept("docstrings", [code, repr(versions)], make))
    return found, {"packages": versions, "split": "by module, without what is in train"}


def _docstrings(packages: Sequence[str]) -> dict[str, list[tuple[str, list[str]]]]:
    print(
        f"reading the docstrings of {', '.join(packages)} (once, some seconds)",
        file=sys.stderr,
    )
    found: dict[str, Any] = {name: [] for name in SPLITS}
    known: set[str] = set()
    for module, text in _modules(packages):
        for docstring in _of_module(text):
            document = _prose(docstring)
            if document and (whole := "\n".join(document)) not in known:
                known.add(whole)
                found[share(module)].append((module.split("/")[0], document))
    seen = {sentence for _, document in found["train"] for sentence in document}
    for name in SPLITS[1:]:
        found[name] = [(p, part) for p, d in found[name] for part in _without(d, seen)]
        seen |= {sentence for _, document in found[name] for sentence in document}
    return found


def _modules(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and code of the modules of some packages, without their tests."""
    for package in packages:
        spec = importlib.util.find_spec(package)
        (root,) = spec.submodule_search_locations
        for path in sorted(pathlib.Path(root).rglob("*.py")):
            module = path.relative_to(root).as_posix()
            if "test" not in module:
                yield f"{package}/{module}", path.read_text("utf-8", "replace")


def _of_module(code: str) -> Iterator[str]:
    """The docstrings in a module's code."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in their code
        try:
            tree = ast.parse(code)
        except SyntaxError:
            return
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node, clean=False)):
            yield text


def _prose(docstring: str) -> list[str]:
    """The sentences of a docstring."""
    found = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        first, *rest = paragraph.split("\n")
        if first.startswith((" ", ">", "*", "-", ".", "|", "+", "#", ":")):
            continue
        if any(line.startswith((" ", ">>>", "---", "===")) for line in rest):
            continue
        text = _ROLE.sub(r"\1", paragraph).replace("`", "").replace("*", "")
        for sentence in sentences(text):
            letters = sum(letter.isalpha() or letter == " " for letter in sentence)
            if (
                _PROSE.fullmatch(sentence)
                and 4 <= len(sentence.split()) <= 60
                and letters > 0.85 * len(sentence)
            ):
                found.append(sentence)
    return found


def _without(document: Iterable[str], seen: set[str]) -> Iterator[list[str]]:
    """The parts of a document between sentences that were seen."""
    part: list[str] = []
    for sentence in document:
        if sentence not in seen:
            part.append(sentence)
        elif part:
            yield part
            part = []
    if part:
        yield part


def _texts(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files below a folder, but for hidden ones and those in hidden folders."""
    for path in place.rglob("*.txt"):
        if not any(name.startswith(".") for name in path.relative_to(place).parts):
            yield path


def _blocks(path: pathlib.Path) -> Iterator[list[str]]:
    """The lines of a file between blank ones."""
    block: list[str] = []
    for line in [*lines(path), ""]:
        if line:
            block.append(line)
        elif block:
            yield block
            block = []
