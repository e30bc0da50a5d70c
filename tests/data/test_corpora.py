from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from trimtab.config import DataConfig
from trimtab.config.registry import load_target
from trimtab.config.registry.data import SOURCES, TOKENIZERS
from trimtab.data import Corpus, open_corpus
from trimtab.data.corpora import embedded_corpus, jsonl_corpus, text_corpus
from trimtab.data.left_out import LeftOut
from trimtab.data.parquet_rows import parquet_corpus
from trimtab.errors import ConfigError, DataError


def texts(corpus: Corpus) -> dict[str, str]:
    return {document.name: document.text for document in corpus.documents(LeftOut())}


def write_jsonl(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_the_registry_names_what_is_there() -> None:
    for spec in [*SOURCES.values(), *TOKENIZERS.values()]:
        assert callable(load_target(spec.path, "data"))


def test_embedded_packages_are_read_without_tests() -> None:
    skipped: LeftOut = LeftOut()
    corpus = embedded_corpus(("mpmath", "mpmath"))
    documents = list(corpus.documents(skipped))
    names = [document.name for document in documents]
    assert "mpmath/functions/zeta.py" in names
    assert names == sorted(set(names))
    assert not any("tests" in name.split("/") for name in names)
    assert "def zeta" in next(d.text for d in documents if d.name == "mpmath/functions/zeta.py")
    assert corpus.name.endswith(f"mpmath {importlib.metadata.version('mpmath')}")
    assert skipped["empty"] + len(documents) == len(corpus.files)


@pytest.mark.parametrize("package", ["not_installed_here", "not_installed.inner", "sys", "mpmath."])
def test_a_package_that_is_not_installed(package: str) -> None:
    with pytest.raises(DataError, match=f"no .py files of a package '{package}'.*\nhint: pip install"):
        embedded_corpus(("mpmath", package))


def test_a_module_and_an_inner_package_can_be_embedded() -> None:
    assert list(texts(embedded_corpus(("typing_extensions",)))) == ["typing_extensions.py"]
    assert "mpmath/libmp/libmpf.py" in texts(embedded_corpus(("mpmath.libmp",)))


def test_a_folder_of_text(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "inner/c.txt", ".hidden/d.txt", "inner/.e.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text of {name}")
    assert texts(text_corpus(str(tmp_path))) == {n: f"text of {n}" for n in ("a.md", "b.txt", "inner/c.txt")}
    assert [*texts(text_corpus(str(tmp_path), "*.txt"))] == ["b.txt", "inner/c.txt"]
    assert [*texts(text_corpus(str(tmp_path), "inner/*"))] == ["inner/c.txt"]
    assert texts(text_corpus(str(tmp_path / "a.md"))) == {"a.md": "text of a.md"}


def test_byte_order_marks_go_and_line_ends_stay(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert texts(text_corpus(str(tmp_path))) == {"a.txt": "one\r\ntwo\r\n"}


def test_empty_and_binary_files_of_a_folder_are_left_out_and_counted(tmp_path: Path) -> None:
    contents = {"a.txt": b"text", "b.txt": b"", "c.png": b"\x89PNG\0\0", "d.txt": b"\xef\xbb\xbf"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    skipped: LeftOut = LeftOut()
    corpus = text_corpus(str(tmp_path))
    assert [document.name for document in corpus.documents(skipped)] == ["a.txt"]
    assert skipped == {"empty": 2, "binary": 1}
    assert corpus.description(skipped) == f"1 text file in {tmp_path} (left out: 1 binary, 2 empty)"
    assert corpus.description({}) == f"4 text files in {tmp_path}"


def test_a_binary_file_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\0def")
    with pytest.raises(DataError, match=r"a.txt: is binary.*byte 3"):
        texts(text_corpus(str(tmp_path / "a.txt")))


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
def test_what_is_not_utf8_names_the_place(tmp_path: Path, prefix: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(prefix + "naïve".encode("latin-1"))
    with pytest.raises(DataError, match=rf"a.txt: is not UTF-8: byte 0xef at byte {2 + len(prefix)}\nhint.*iconv"):
        texts(text_corpus(str(tmp_path)))


def test_utf16_is_told_apart_from_binary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text", encoding="utf-16")
    with pytest.raises(DataError, match=r"is UTF-16.*\n.*iconv -f utf-16"):
        texts(text_corpus(str(tmp_path)))


@pytest.mark.parametrize("opened", [text_corpus, jsonl_corpus, parquet_corpus])
def test_nothing_there(tmp_path: Path, opened: Callable[[str], Corpus]) -> None:
    with pytest.raises(DataError, match=rf"data.source.path: there is nothing at .*\nhint.*{tmp_path}"):
        opened(str(tmp_path / "missing" / "deep"))
    with pytest.raises(DataError, match="holds no files"):
        opened(str(tmp_path))


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"none of the 1 files .* matches '\*.md', such as 'a.txt'"):
        text_corpus(str(tmp_path), "*.md")
    with pytest.raises(DataError, match=r"matches '\*\.jsonl'"):
        jsonl_corpus(str(tmp_path))


def test_two_stars_stand_for_no_folder_too(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a.txt", "deep/b.txt", "deep/er/c.txt", "deep/d.md"):
        (tmp_path / name).write_text(name)
    assert list(texts(text_corpus(str(tmp_path), "**/*.txt"))) == ["a.txt", "deep/b.txt", "deep/er/c.txt"]


def test_a_device_is_no_source() -> None:
    with pytest.raises(DataError, match="must be a file or a folder"):
        text_corpus("/dev/null")


def test_json_lines(tmp_path: Path) -> None:
    lines: list[str | bytes] = [
        b'\xef\xbb\xbf{"text": "one"}',
        '{"text": ""}',
        "",
        '{"id": 3, "text": "zw\\u00f6lf\\n"}',
    ]
    path = write_jsonl(tmp_path / "a.jsonl", *lines)
    skipped: LeftOut = LeftOut()
    documents = list(jsonl_corpus(str(path)).documents(skipped))
    assert [(d.name, d.text) for d in documents] == [("a.jsonl:1", "one"), ("a.jsonl:4", "zwölf\n")]
    assert [d.identity for d in documents] == ["one", "zwölf\n"]
    assert skipped == {"empty": 1}
    assert len(texts(jsonl_corpus(str(tmp_path)))) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "torn', r"a.jsonl:2: is not JSON: .*\nhint"),
        ("{text: 1}", r"a.jsonl:2: is not JSON: [^\n:]* at character 2\n"),
        ("[" * 100_000, "a.jsonl:2: is not JSON"),
        ('"text"', "a.jsonl:2: must be a JSON object. Received: str"),
        (
            '{"texts": "a", "id": 1}',
            r"a.jsonl:2: has no field 'text'.*'texts', 'id'\nhint: did you mean 'texts'",
        ),
        ("{}", "a.jsonl:2: has no field 'text'.*Its fields: none"),
        ('{"text": ["a"]}', "a.jsonl:2: field 'text' must be a string. Received: list"),
        ('{"text": null}', "a.jsonl:2: field 'text' must be a string. Received: NoneType"),
        ('{"text": "a\\ud800"}', "a.jsonl:2: field 'text' holds half of a surrogate pair at character 1"),
        (b'{"text": "na\xefve"}', "a.jsonl:2: is not UTF-8: byte 0xef at byte 12 of the line"),
    ],
)
def test_broken_json_lines_name_file_and_line(tmp_path: Path, line: str | bytes, message: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", '{"text": "one"}', line, '{"text": "three"}')
    with pytest.raises(DataError, match=message):
        texts(jsonl_corpus(str(path)))


def write_parquet(path: Path, **columns: object) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", id=[1, 2, 3, 4], text=["one", None, "", "four"])
    skipped: LeftOut = LeftOut()
    documents = list(parquet_corpus(str(tmp_path)).documents(skipped))
    assert [(d.name, d.text) for d in documents] == [("a.parquet:1", "one"), ("a.parquet:4", "four")]
    assert skipped == {"empty": 2}
    coded = pyarrow.array(["a", "b", "a"]).dictionary_encode()
    assert [*texts(parquet_corpus(str(write_parquet(tmp_path / "b.parquet", text=coded)))).values()] == [
        "a",
        "b",
        "a",
    ]


def test_parquet_of_another_shape(tmp_path: Path) -> None:
    path = str(write_parquet(tmp_path / "a.parquet", texts=["one"], id=[1]))
    with pytest.raises(DataError, match=r"no column 'text'.*'texts', 'id'\nhint: did you mean 'texts'"):
        texts(parquet_corpus(path))
    with pytest.raises(DataError, match=r"column 'id' must hold strings. Received: int64"):
        texts(parquet_corpus(path, "id"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match=r"a.parquet: cannot be read as Parquet"):
        texts(parquet_corpus(path))


def test_parquet_with_broken_text(tmp_path: Path) -> None:
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(),
        2,
        [None, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0\5\0\0\0"), pyarrow.py_buffer(b"okna\xef")],
    )
    path = write_parquet(tmp_path / "a.parquet", text=broken)
    with pytest.raises(DataError, match=r"a.parquet:.* is not UTF-8: byte 0xef at byte 2"):
        texts(parquet_corpus(str(path)))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else found(name))
    with pytest.raises(ConfigError, match=r"pip install 'trimtab\[parquet\]'$"):
        parquet_corpus(str(tmp_path))


def test_the_content_hash_is_of_names_bytes_and_manner(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text(json.dumps({"text": "a", "body": "b"}))
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    kept = jsonl_corpus(one).content_hash()
    assert jsonl_corpus(two).content_hash() == kept
    assert jsonl_corpus(two, "body").content_hash() != kept
    assert text_corpus(two).content_hash() != kept
    (tmp_path / "two" / "a.jsonl").write_text(json.dumps({"text": "a", "body": "c"}))
    assert jsonl_corpus(two).content_hash() != kept
    (tmp_path / "one" / "a.jsonl").rename(tmp_path / "one" / "b.jsonl")
    assert jsonl_corpus(one).content_hash() != kept


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    corpus = text_corpus(str(tmp_path))
    (tmp_path / "a.txt").unlink()
    for read in (corpus.content_hash, lambda: texts(corpus)):
        with pytest.raises(DataError, match=r"a.txt: cannot be read: No such file"):
            read()


def test_the_configuration_chooses_the_corpus(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", '{"body": "b"}')
    write_parquet(tmp_path / "a.parquet", content=["c"])
    for source, expected in (
        ({"name": "text", "path": str(tmp_path), "pattern": "*.jsonl"}, ['{"body": "b"}']),
        ({"name": "jsonl", "path": str(tmp_path), "field": "body"}, ["b"]),
        ({"name": "parquet", "path": str(tmp_path), "column": "content"}, ["c"]),
    ):
        corpus = open_corpus(DataConfig.model_validate({"source": source}).source, "data.source")
        assert [*texts(corpus).values()] == expected
    assert len(open_corpus(DataConfig().source, "data.source").files) > 1_000
