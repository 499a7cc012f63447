"""Which files are read, how they fall into documents, and what their YAML means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catchment.errors import SpecError
from catchment.spec.load import load, load_documents
from catchment.spec.model import PartlyWrong

SOURCE = "kind: source\nspec: {name: NAME, registry: python, path: test, tables: ['*'], destinations: [d]}\n"
DESTINATION = "kind: destination\nspec: {name: d, registry: python, path: test}\n"


@pytest.fixture
def value(tmp_path):
    """Reads YAML as the nested spec of a source and gives what a plugin would get."""

    def read(text, **environ):
        path = tmp_path / "value.yml"
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        head = "kind: source\nspec:\n  name: s\n  registry: python\n  path: test\n  tables: ['*']\n  spec:\n"
        path.write_text(head + indented)
        return load([path], require="relaxed", environ=environ).sources[0].spec

    return read


@pytest.fixture
def warnings(tmp_path):
    def read(text, **environ):
        path = tmp_path / "warned.yml"
        path.write_text(text)
        return [str(w).removeprefix(f"{path}:") for w in load([path], require="relaxed", environ=environ).warnings]

    return read


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        folder.joinpath(name.replace("__", ".")).write_text(text)
    return folder


def names(config):
    return [source.name for source in config.sources]


def test_a_folder_is_read_by_name_and_not_below(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    write(folder, b__yml=SOURCE.replace("NAME", "b"), a__yaml=SOURCE.replace("NAME", "a"), z__yml=DESTINATION)
    write(folder, c__YML="{", d__json="{", e__txt="{", notes="{")
    (folder / ".hidden.yml").write_text("{")
    (folder / "below.yml").mkdir()
    (folder / "below.yml" / "x.yml").write_text("{")

    config = load([folder])

    assert names(config) == ["a", "b"]
    assert config.warnings == ()


def test_a_link_in_a_folder_is_followed_and_a_broken_one_told(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    write(tmp_path, real=SOURCE.replace("NAME", "linked"))
    (folder / "a.yml").symlink_to(tmp_path / "real")
    assert names(load([folder], require="relaxed")) == ["linked"]

    (folder / "b.yml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SpecError, match=r"b\.yml: no such file or directory"):
        load([folder], require="relaxed")
    (folder / "b.yml").unlink()
    (folder / "b.yml").symlink_to(tmp_path)
    with pytest.raises(SpecError, match=r"b\.yml: is a directory"):
        load([folder], require="relaxed")


def test_files_and_folders_come_in_the_order_of_the_command_line(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two"
    two.mkdir()
    one.write_text(SOURCE.replace("NAME", "first") + "---\n" + DESTINATION)
    write(two, a__yml=SOURCE.replace("NAME", "second"))

    assert names(load([one, two])) == ["first", "second"]
    assert names(load([two, one])) == ["second", "first"]


def test_an_empty_folder_matters_only_alone(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    file = write(tmp_path, good=SOURCE.replace("NAME", "s") + "---\n" + DESTINATION) / "good"

    config = load([folder, file])

    assert [str(w) for w in config.warnings] == [f"{folder}: the folder has no file that ends in `.yml` or `.yaml`"]
    with pytest.raises(SpecError, match="has no file that ends in"):
        load([folder])


def test_a_folder_with_only_json_says_what_to_do(tmp_path):
    write(tmp_path, a__json="{}")

    with pytest.raises(SpecError, match=r"`\.yml` or `\.yaml`; name a file with another ending itself"):
        load([tmp_path])


def test_a_missing_file_is_named_as_the_system_names_it(tmp_path):
    path = tmp_path / "no_such_file.yml"

    with pytest.raises(SpecError, match=f"open {path}: no such file or directory"):
        load([path])


def test_the_same_file_twice_has_duplicate_names(tmp_path):
    path = write(tmp_path, a__yml=SOURCE.replace("NAME", "gcp") + "---\n" + DESTINATION) / "a.yml"

    with pytest.raises(SpecError) as caught:
        load([path, path])

    assert "duplicate source name gcp; the first is at" in str(caught.value)
    assert "duplicate destination name d;" in str(caught.value)


@pytest.mark.parametrize(
    "separator",
    ["---\n", "--- \n", "--- # comment\n", "---\t# comment\n", "...\n---\n", "--- !!map\n", "---\n# only this\n---\n"],
)
def test_every_separator_of_yaml_starts_a_document(tmp_path, separator):
    path = tmp_path / "a.yml"
    path.write_text(f"{SOURCE.replace('NAME', 's')}{separator}{DESTINATION}")

    assert [d.name for d in load([path]).destinations] == ["d"]


@pytest.mark.parametrize("end", ["---", "---\n", "\n---\n---\n", "...\n", "--- # nothing\n", "---\n# nothing\n"])
def test_empty_documents_are_left_out(tmp_path, end):
    path = tmp_path / "a.yml"
    path.write_text(f"---\n{SOURCE.replace('NAME', 's')}---\n{DESTINATION}{end}")

    assert names(load([path])) == ["s"]


def test_an_empty_file_has_no_documents(tmp_path):
    (tmp_path / "a.yml").write_text("# nothing\n")

    with pytest.raises(SpecError) as caught:
        load([tmp_path])

    assert str(caught.value).splitlines() == [
        "expecting at least one source; add a document with `kind: source`",
        "expecting at least one destination; add a document with `kind: destination`",
    ]


def test_a_separator_inside_a_block_is_text(value):
    assert value("a: |\n  x\n  ---\n  y") == {"a": "x\n---\ny\n"}


def test_a_document_without_a_kind_is_a_source(tmp_path):
    (tmp_path / "a.yml").write_text(SOURCE.replace("kind: source\n", "").replace("NAME", "s"))

    assert names(load([tmp_path], require="relaxed")) == ["s"]


def test_json_files(tmp_path):
    nested = {"quote": 'a "b"\n\\', "unicode": "é", "list": [1, 2.5, None, True]}
    spec = {"name": "s", "registry": "python", "path": "test", "tables": ["*"], "spec": nested}
    document = {"kind": "source", "spec": spec}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document, indent="\t"))

    assert load([path], require="relaxed").sources[0].spec == nested


@pytest.mark.parametrize("encode", [lambda t: b"\xef\xbb\xbf" + t, lambda t: t.replace(b"\n", b"\r\n")])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, encode):
    text = SOURCE.replace("NAME", "s").replace("}", ", spec: {a: 'x'}}") + "---\n" + DESTINATION
    (tmp_path / "a.yml").write_bytes(encode(text.encode()))

    config = load([tmp_path])

    assert names(config) == ["s"]
    assert config.sources[0].spec == {"a": "x"}
    assert config.destinations[0].name == "d"


def test_a_byte_order_mark_takes_no_column(tmp_path):
    (tmp_path / "a.yml").write_text("{kind: nothing}\n", encoding="utf-8-sig")

    with pytest.raises(SpecError, match=r"a\.yml:1:2 kind: unknown kind nothing"):
        load([tmp_path])


def test_windows_line_ends_in_a_block_are_line_feeds(tmp_path):
    head = "kind: source\r\nspec:\r\n  name: s\r\n  registry: python\r\n  path: test\r\n  tables: ['*']\r\n"
    (tmp_path / "a.yml").write_bytes(f"{head}  spec:\r\n    a: |\r\n      x\r\n      y\r\n".encode())

    assert load([tmp_path], require="relaxed").sources[0].spec == {"a": "x\ny\n"}


def test_a_file_that_is_not_utf_8_is_told(tmp_path):
    (tmp_path / "a.yml").write_text("kind: source", encoding="utf-16")

    with pytest.raises(SpecError, match=r"a\.yml: is not UTF-8 text \(byte 1\); save it as UTF-8"):
        load([tmp_path])


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *[(word, True) for word in ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")],
        *[(word, False) for word in ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")],
        *[(word, None) for word in ("", "~", "null", "Null", "NULL")],
        ("yEs", "yEs"), ("nULL", "nULL"), ("tRUE", "tRUE"),
        ("0777", 511), ("0o17", 15), ("0xff", 255), ("-0xFF", -255), ("0b101", 5), ("1_000", 1000), ("+7", 7),
        ("08", 8), ("0", 0), ("-0", 0), ("012345", 5349), ("0o8", "0o8"), ("0xg", "0xg"),
        ("1:30", "1:30"), ("190:20:30", "190:20:30"),
        ("2025-01-01", "2025-01-01"), ("2025-01-01T10:00:00Z", "2025-01-01T10:00:00Z"),
        ("2025-01-01 10:00:00.5 +1", "2025-01-01 10:00:00.5 +1"),
        ("1.5", 1.5), ("1e3", 1000), ("1.0", 1), (".5", 0.5), ("-.5", -0.5), ("1e-3", 0.001), ("6.02e23", 6.02e23),
        (".", "."), ("1.2.3", "1.2.3"), ("v1", "v1"), ("1e999", "1e999"), ("_1", "_1"), ("1e", "1e"), ("٣", "٣"),
        ("9007199254740993", 9007199254740993), ("-9223372036854775808", -9223372036854775808),
        ("18446744073709551615", 18446744073709551615), ("1" * 30, 111111111111111111111111111111),
        ("!!str 5", "5"), ("!!int '5'", 5), ("!!float 1.5", 1.5), ("!!bool 'yes'", True), ("!!null ''", None),
        ("!!binary aGVsbG8=", "hello"), ("!!timestamp 2025-01-01", "2025-01-01"), ("!mine 5", "5"), ("! 5", "5"),
        ("'5'", "5"), ('"yes"', "yes"), ('"\\u00e9\\n"', "é\n"), ("=", "="), ("'<<'", "<<"),
    ],
)  # fmt: skip
def test_scalars_are_read_as_upstream_reads_them(value, written, read):
    found = value(f"a: {written}")["a"]

    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize("written", [".inf", "-.Inf", "+.INF", ".nan"])
def test_numbers_that_json_does_not_have_are_refused(value, written):
    with pytest.raises(SpecError, match=r"spec\.spec\.a: expected a finite number, got .*; write it in quotes if"):
        value(f"a: {written}")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("!!int x", "`!!int` does not fit 'x'"),
        ("!!bool 5", "`!!bool` does not fit '5'"),
        ("!!int yes", "`!!int` does not fit 'yes'"),
        ("!!binary //79", "`!!binary` needs a text in base64 that is UTF-8"),
        ("!!binary a", "`!!binary` needs a text in base64 that is UTF-8"),
    ],
)
def test_tags_that_do_not_fit_are_refused(value, written, told):
    with pytest.raises(SpecError) as caught:
        value(f"a: {written}")

    assert str(caught.value).endswith(f"spec.spec.a: {told}")


def test_keys_are_always_texts(value):
    assert value("1: a\n0x10: b\n1.5: c\n'yes': d\n? e\n: f\n'': g\n<: h") == {
        "1": "a", "16": "b", "1.5": "c", "yes": "d", "e": "f", "": "g", "<": "h",
    }  # fmt: skip


def test_a_key_that_yaml_1_1_takes_for_a_bool_is_told(warnings, value):
    assert value("y: 1\noff: 2\ntrue: 3") == {"true": 3, "false": 2}
    found = warnings("spec: {name: s, registry: python, path: p, tables: [a], spec: {on: 1}}")
    assert found == ["1:64 spec.spec: key `on` is read as `true`, as in YAML 1.1; write it in quotes if that is wrong"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("? [a, b]\n: c", "a key has to be a single value; write the key in quotes"),
        ("? {a: b}\n: c", "a key has to be a single value; write the key in quotes"),
        ("~: c", "a key is missing in front of `:`; write an empty one as `''`"),
        ("{null: c}", "a key is missing in front of `:`; write an empty one as `''`"),
        ("<<: 5", "`<<` needs a mapping, or a list of them"),
        ("<<: [{a: 1}, 5]", "`<<` needs a mapping, or a list of them"),
    ],
)
def test_keys_that_json_does_not_have_are_refused(value, text, told):
    with pytest.raises(SpecError, match=r"value\.yml:8:") as caught:
        value(text)

    assert told in str(caught.value)


def test_anchors_aliases_and_merge_keys(value):
    text = "one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2}\nboth: {<<: [*one, *two], c: 3, d: *one}"

    assert value(text)["both"] == {"a": 1, "b": 1, "c": 3, "d": {"a": 1, "b": 1}}


def test_own_keys_win_over_merged_ones_wherever_they_stand(value):
    assert value("m: &m {a: 1, b: 1}\nx: {a: 2, <<: *m}\ny2: {<<: *m, a: 2}") == {
        "m": {"a": 1, "b": 1}, "x": {"a": 2, "b": 1}, "y2": {"a": 2, "b": 1},
    }  # fmt: skip
    assert value("m: &m {a: 1}\nn: &n {a: 2, b: 2}\nx: {<<: *m, << : *n}")["x"] == {"a": 1, "b": 2}


def test_what_merged_keys_say_is_found_where_it_is_written(tmp_path):
    text = "common: &c\n  tables: 5\n"
    path = tmp_path / "a.yml"
    path.write_text(f"spec:\n  spec: &c\n    tabls: 5\n  <<: *c\n  name: s\n  # {text[:6]}\n  path: p\n")

    with pytest.raises(SpecError, match=rf'{path}:3:5 spec\.tabls: unknown field "tabls"'):
        load([path], require="relaxed")


def test_anchors_end_with_their_document(tmp_path):
    (tmp_path / "a.yml").write_text("spec: {name: &n s}\n---\nspec: {name: *n}\n")

    with pytest.raises(SpecError, match=r"a\.yml:3:14: is no valid YAML: alias `\*n` has no anchor `&n`"):
        load([tmp_path])


def test_of_two_equal_keys_the_last_counts_and_both_lines_are_told(warnings, value):
    assert value("a: 1\nb: 2\na: 3") == {"a": 3, "b": 2}

    text = "kind: source\nspec:\n  name: s\n  registry: python\n  path: p\n  tables: [a]\n  name: t\n"
    assert warnings(text) == ["7:3 spec.name: key `name` is given twice, in lines 3 and 7; the last one counts"]


def test_a_merged_key_is_no_second_one(warnings):
    text = (
        "kind: source\nspec: {name: s, registry: python, path: p, tables: [a], spec: {a: &a {k: 1}, b: {<<: *a, k: 2}}}"
    )

    assert warnings(text) == []


def test_malformed_yaml_has_line_and_column(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("kind: source\nspec:\n  name: s\n  tables: [a, b\n  path: x\n")

    with pytest.raises(SpecError) as caught:
        load([path])

    assert str(caught.value).startswith(f"{path}:5:7: is no valid YAML: ")


def test_a_tab_in_front_of_a_key_is_named(tmp_path):
    (tmp_path / "a.yml").write_text("spec:\n\tname: s\n")

    with pytest.raises(SpecError, match=r"a\.yml:2:1: is no valid YAML: .*; a tab cannot indent, use spaces"):
        load([tmp_path])


def test_a_control_character_is_told_with_its_place(tmp_path):
    (tmp_path / "a.yml").write_text("spec:\n  name: s\n  path: \x07\n")

    with pytest.raises(SpecError, match=r"a\.yml:3:9: is no valid YAML: the character '\\x07' is not allowed"):
        load([tmp_path])


def test_documents_in_front_of_a_broken_one_are_checked_too(tmp_path):
    (tmp_path / "a.yml").write_text("spec: {name: s, pth: x}\n---\n[\n")

    with pytest.raises(PartlyWrong) as caught:
        load([tmp_path])

    assert {"spec.pth", "spec.tables", ""} <= {problem.path for problem in caught.value.problems}


def test_documents_may_be_mappings_instead_of_files():
    config = load_documents(
        [
            {"kind": "source", "spec": {"name": "s", "registry": "python", "path": "p", "tables": ("*",),
                                        "destinations": ["d"], "spec": {"folder": Path("/x")}}},
            {"kind": "destination", "spec": {"name": "d", "registry": "python", "path": "p"}},
        ]
    )  # fmt: skip

    assert config.sources[0].spec == {"folder": "/x"}
    with pytest.raises(SpecError) as caught:
        load_documents([{"kind": "source", "spec": {"nam": "s"}}], require="relaxed")
    assert str(caught.value).splitlines()[0] == 'spec.nam: unknown field "nam"; did you mean `name`?'


def test_references_in_mappings_are_texts():
    config = load_documents(
        [{"spec": {"name": "s", "registry": "python", "path": "p", "tables": ["*"], "spec": {"a": "${X}"}}}],
        require="relaxed",
    )

    assert config.sources[0].spec == {"a": "${X}"}
