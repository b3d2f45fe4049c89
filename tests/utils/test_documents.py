"""Text files as Windows, browsers and Excel write them hold the same documents; what can't be read is named with its line."""

import codecs
import json

import pytest

from shortgpt.utils.documents import documents_in

TEXT = "The sea is wide.\nThe café is shut."
LINE = json.dumps({"text": TEXT}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.txt", TEXT.encode()),
        ("UPPER.TXT", TEXT.encode()),
        ("mark.txt", TEXT.encode("utf-8-sig")),
        ("windows.txt", TEXT.replace("\n", "\r\n").encode()),
        ("old_mac.txt", TEXT.replace("\n", "\r").encode()),
        ("powershell.txt", codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le")),
        ("big_end.txt", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")),
        ("plain.jsonl", LINE.encode()),
        ("mark.jsonl", (LINE + "\n").encode("utf-8-sig")),
        ("windows.JSONL", (LINE + "\r\n\r\n").encode()),
        ("powershell.jsonl", codecs.BOM_UTF16_LE + LINE.encode("utf-16-le")),
    ],
)
def test_the_same_document_however_it_was_saved(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert documents_in(tmp_path / name) == [TEXT]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_a_json_string_may_hold_what_python_takes_for_a_line_end(tmp_path, separator):
    lines = [json.dumps({"text": f"one{separator}two"}, ensure_ascii=False), json.dumps({"text": "three"})]
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert documents_in(tmp_path / "t.jsonl") == [f"one{separator}two", "three"]


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        (
            "t.txt",
            "a\nb\ncafé".encode("cp1252"),
            ValueError,
            r"t.txt, line 3, is not UTF-8 text \(byte 0xe9\): save it as",
        ),
        ("t.txt", codecs.BOM_UTF16_LE + b"a\0b", ValueError, "t.txt, line 1, is not UTF-16 text"),
        ("t.txt", "abc".encode("utf-16-le"), ValueError, "holds zero bytes, as UTF-16 without a byte-order mark"),
        ("t.jsonl", b'{"text": "a"}\n\n{', ValueError, "t.jsonl, line 3: every line must be .*, and this is no JSON"),
        ("t.jsonl", b"[" * 100_000, ValueError, "line 1: every line must be .*, and this is no JSON"),
        ("t.jsonl", b'{"messages": []}', ValueError, "line 1: .* and this has 'messages'"),
        ("t.jsonl", b"[1]", ValueError, "line 1: .* and this is no object"),
        ("t.jsonl", b'{"text": null}', TypeError, "line 1: texts must be strings, got None"),
        ("t.csv", b"text", ValueError, "must be a .txt or .jsonl file"),
    ],
)
def test_what_can_not_be_read_is_named_with_its_line(tmp_path, name, data, error, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        documents_in(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_folders_and_absent_files_are_told(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    for name in ("folder.txt", "none.txt"):
        with pytest.raises(FileNotFoundError, match=f"no such calibration file: .*{name}"):
            documents_in(tmp_path / name)
