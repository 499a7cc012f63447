"""`${…}` in values and keys: what it gives, and that it never changes anything around it."""

from __future__ import annotations

import json

import pytest

from catchment.errors import SpecError
from catchment.spec.load import load

JSON = '{\n  "type": "service_account",\n  "key": "-----BEGIN X-----\\nab: #c\\n-----END X-----\\n",\n  "n": 5\n}\n'
PEM = "-----BEGIN CERTIFICATE-----\nMIIB: x # y\n  indented\n\n-----END CERTIFICATE-----\n"

HEAD = "kind: source\nspec:\n  name: s\n  registry: python\n  path: test\n  tables: ['*']\n  spec:\n"


@pytest.fixture
def value(tmp_path):
    """Reads YAML as the nested spec of a source; `final` says how the file ends."""

    def read(text, environ=None, final="\n"):
        path = tmp_path / "value.yml"
        path.write_text(HEAD + "\n".join(f"    {line}" for line in text.split("\n")) + final)
        return load([path], require="relaxed", environ=environ or {}).sources[0].spec

    return read


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes a file whose path stands in `${file:…}`."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "content.txt").write_bytes(text.encode())
        return "content.txt"

    return write


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("5", 5), ("yes", True), ("off", False), ("", None), ("null", None), ("1.5", 1.5), ("0777", 511),
        ("9007199254740993", 9007199254740993), ("2025-01-01", "2025-01-01"), ("abc", "abc"), (" 5 ", 5), ("5\n", 5),
        ("[1, a]", [1, "a"]), ('{"a": {"b": [true]}}', {"a": {"b": [True]}}), (JSON, json.loads(JSON)),
        ('"5"', "5"), ("'yes'", "yes"), ("{a: 1, a: 2}", {"a": 2}), ("[]", []), ("{}", {}),
        ("{{YEAR}}", "{{YEAR}}"), ("[{[1]: 2}]", "[{[1]: 2}]"),
    ],
)  # fmt: skip
def test_a_plain_scalar_that_is_one_reference_is_read_as_yaml(value, text, typed):
    found = value("a: ${V}", {"V": text})["a"]

    assert found == typed
    assert type(found) is type(typed)


@pytest.mark.parametrize("text", ["5", "yes", "", "null", "0777", "[1]", '{"a": 1}', '"5"', " x ", "a: b", "a #b"])
@pytest.mark.parametrize("written", ['"${V}"', "'${V}'", "!!str ${V}", ">-\n  ${V}", "|-\n  ${V}"])
def test_in_quotes_blocks_and_under_str_it_stays_a_text(value, text, written):
    assert value(f"a: {written}", {"V": text}) == {"a": text}


@pytest.mark.parametrize("text", ["5", "yes", "", "[1]", '{"a": 1}'])
def test_with_text_around_it_it_stays_a_text(value, text):
    assert value("a: x${V}\nb: ${V}x", {"V": text}) == {"a": f"x{text}", "b": f"{text}x"}


@pytest.mark.parametrize(
    "text",
    [
        "host: name", "pass #word", "#all", "- item", "a: b\nc: d", "- a\n- b", "&anchor x", "*alias", "!tag x",
        "!!int 5x", "| block", "> folded", "%TAG", "@at", "`tick", "? x", ": y", "[not closed", "{not: closed", "[a] b",
        '"a" b', "'it's'", '"quote', "5 # five", "a\nb", "--- x", "one\n\ntwo\n", "[a]\n---\n[b]", "[*x]", "{a: *x}",
        "\\n \\x", "<<", "{{template}}x", "[a]#b", "${OTHER}", "C:\\temp", "😀", "a\tb", "\x1b[0m", "[\x07]",
    ],
)  # fmt: skip
def test_text_that_upstream_would_break_stays_as_it_is(value, text):
    assert value("a: ${V}\nb: after", {"V": text}) == {"a": text, "b": "after"}


def test_values_in_lists_and_flow_syntax(value):
    environ = {"A": "1", "B": "x, y", "C": "}]"}

    assert value("a: [${A}, ${B}, '${C}', ${C}]\nb: {k: ${A}, l: ${B}}\nc:\n- ${A}\n- ${B}", environ) == {
        "a": [1, "x, y", "}]", "}]"], "b": {"k": 1, "l": "x, y"}, "c": [1, "x, y"],
    }  # fmt: skip


def test_references_in_keys_are_texts(value):
    assert value("${K}: 1\n'${L}': 2\npre-${K}: 3", {"K": "yes", "L": "a: b"}) == {"yes": 1, "a: b": 2, "pre-yes": 3}


def test_what_comes_in_is_not_looked_at_again(value, file):
    path = file("${SECRET} ${time:now}")

    assert value("a: ${A}\nb: '${A}'\nc: ${file:" + path + "}\nd: ${J}", {"A": "${B}", "B": "x", "J": '["${B}"]'}) == {
        "a": "${B}", "b": "${B}", "c": "${SECRET} ${time:now}", "d": ["${B}"],
    }  # fmt: skip


def test_a_dollar_sign_is_written_as_a_reference(value):
    environ = {"N": "v"}
    assert value("a: ${$}{N}\nb: ${$}\nc: '${$}${N}'\nd: a${$}${$}b", environ) == {
        "a": "${N}", "b": "$", "c": "$v", "d": "a$$b",
    }  # fmt: skip


def test_what_is_no_reference_is_left_alone(value):
    text = "a: ${}\nb: $N\nc: $$\nd: '${unclosed'\ne: a${}b\nf: $ {N}"
    assert value(text, {"N": "v"}) == {
        "a": "${}", "b": "$N", "c": "$$", "d": "${unclosed", "e": "a${}b", "f": "$ {N}",
    }  # fmt: skip


def test_a_sign_in_front_of_a_reference_stays_in_front(value):
    assert value("a: $${N}\nb: \\${N}\nc: -${N}", {"N": "5"}) == {"a": "$5", "b": "\\5", "c": "-5"}


def test_defaults(value):
    environ = {"SET": "s", "EMPTY": ""}

    assert value("a: ${SET:-d}\nb: ${NO:-d}\nc: ${EMPTY:-d}\nd: ${NO:-}\ne: '${NO:-}'\nf: ${NO:-5}", environ) == {
        "a": "s", "b": "d", "c": "d", "d": None, "e": "", "f": 5,
    }  # fmt: skip
    assert value("a: ${NO:-[1, 2]}\nb: ${NO:-a: b}\nc: ${NO:-x:-y}\nd: ${EMPTY}x", environ) == {
        "a": [1, 2], "b": "a: b", "c": "x:-y", "d": "x",
    }  # fmt: skip


def test_comments_are_not_looked_at(value):
    assert value("# ${UNSET}\na: 1 # ${UNSET} or ${file:none}\nb: '#${V}' # ${UNSET}", {"V": "v1"}) == {
        "a": 1, "b": "#v1",
    }  # fmt: skip


def test_times_are_typed_by_their_layout(value):
    text = "a: ${time:2025-01-01}\nb: ${time:2025-01-01|2006-01-02}\nc: ${time:2025-01-01|2006}\n"
    text += "d: '${time:2025-01-01|2006}'"
    assert value(text + "\ne: x-${time:2025-01-01|Jan 2, 2006 at 3:04PM}") == {
        "a": "2025-01-01T00:00:00Z", "b": "2025-01-01", "c": 2025, "d": "2025", "e": "x-Jan 1, 2025 at 12:00AM",
    }  # fmt: skip


def test_a_layout_with_commas_and_colons_in_flow_syntax(value):
    assert value("a: [${time:2025-01-01|Jan 2, 2006}, {b: ${time:2025-01-01|15: 04 # x}}]") == {
        "a": ["Jan 1, 2025", {"b": "00: 00 # x"}]
    }


def test_files_are_relative_to_the_working_folder_and_names_may_be_odd(value, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "a: #b's, [x].txt").write_text("content")
    monkeypatch.chdir(folder)

    assert value("a: ${file:a: #b's, [x].txt}\nb: [\"${file:./a: #b's, [x].txt}\"]") == {
        "a": "content", "b": ["content"],
    }  # fmt: skip


def test_a_number_with_leading_zeros_stays_in_quotes_what_it_is(value, file):
    path = file("012345")

    assert value(f'a: "${{file:{path}}}"\nb: ${{file:{path}}}\nc: "${{ID}}"', {"ID": "0123456789"}) == {
        "a": "012345", "b": 5349, "c": "0123456789",
    }  # fmt: skip


@pytest.mark.parametrize("text", [JSON, PEM, JSON.rstrip(), '{"one": "line"}', PEM.replace("\n", "\r\n"), "a\\nb", "x"])
@pytest.mark.parametrize("written", ['"{}"', "'{}'", "|-\n  {}", ">-\n  {}"])
@pytest.mark.parametrize("final", ["\n", "", "\nb: 1"])
def test_a_file_is_exact_in_quotes_and_blocks(value, file, text, written, final):
    reference = f"${{file:{file(text)}}}"

    assert value(f"a: {written.format(reference)}", final=final.replace("b:", "    b:"))["a"] == text


@pytest.mark.parametrize("final", ["\n", "", "\n    b: 1\n"])
@pytest.mark.parametrize("text", [JSON, PEM])
def test_a_file_is_exact_in_a_block_that_keeps_its_line_end(value, file, text, final):
    assert value(f"a: |\n  ${{file:{file(text)}}}", final=final)["a"] == text


@pytest.mark.parametrize(("written", "read"), [("|", "x\n"), ("|-", "x"), (">", "x\n"), ("|+", "x\n\n")])
def test_a_block_ends_a_line_that_has_no_end(value, written, read):
    assert value(f"a: {written}\n  ${{V}}\n\nb: 1", {"V": "x"}) == {"a": read, "b": 1}


def test_a_plain_file_is_exact_too(value, file):
    assert value(f"a: ${{file:{file(PEM)}}}") == {"a": PEM}
    assert value(f"a: x ${{file:{file(JSON)}}}") == {"a": f"x {JSON}"}
    assert value(f"a: ${{file:{file(JSON)}}}") == {"a": json.loads(JSON)}
    assert value(f"a: ${{file:{file('one line' + chr(10))}}}") == {"a": "one line"}


@pytest.mark.parametrize(
    ("written", "environ", "read"),
    [
        ("2024${N}", {"N": "5"}, "20245"),
        ("0${N}", {"N": "7"}, "07"),
        ("1${N}", {"N": "5"}, "15"),
        ("${A}${B}", {"A": "1", "B": "2"}, "12"),
        ("${A}.${B}", {"A": "1", "B": "2"}, "1.2"),
        ("${A}_${B}", {"A": "1", "B": "2"}, "1_2"),
        ("${A}e${B}", {"A": "1", "B": "2"}, "1e2"),
        ("v${A}.${B}", {"A": "1", "B": "2"}, "v1.2"),
        ("${A}-${B}", {"A": "1", "B": "2"}, "1-2"),
        ("${A}:${B}", {"A": "h", "B": "80"}, "h:80"),
        ("${A}/${B}", {"A": "1", "B": "2"}, "1/2"),
    ],
)
def test_digits_beside_a_reference_do_not_merge_with_it(value, written, environ, read):
    assert value(f"a: {written}", environ) == {"a": read}


@pytest.mark.parametrize("written", ["${V}", '"${V}"', "'${V}'"])
@pytest.mark.parametrize(
    "text", ["a: b", "a #b", 'say "hi"', "back\\slash", "C:\\q\\x", "it's", "line one\nline two\n", "tab\there"]
)
def test_a_value_needs_no_escaping(value, written, text):
    assert value(f"a: {written}\nb: [{written}]", {"V": text}) == {"a": text, "b": [text]}


def test_a_value_adds_no_key_and_no_document(value):
    evil = "x\n    admin: true\n---\nkind: destination\n"

    assert value("a: ${V}\nb: '${V}'\nc: |-\n  ${V}", {"V": evil}) == {"a": evil, "b": evil, "c": evil}


def test_every_missing_variable_is_told_at_once_with_its_place(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text(
        "spec:\n  name: ${NAME}\n  path: p\n  registry: python\n  tables: ['${ONE}', \"${TWO}-${THREE}\"]\n"
        "---\nkind: destination\nspec: {name: d, path: '${file:no.txt}', version: ${PRODUCTION_VERSIO}, ${KEY}: 1}\n"
    )

    with pytest.raises(SpecError) as caught:
        load([path], environ={"PRODUCTION_VERSION": "v1.0.0"})

    found = [str(problem).removeprefix(f"{path}:").split("; ")[0] for problem in caught.value.problems]
    assert found == [
        '1:1 spec.destinations: source "${NAME}": at least one destination is required',
        "2:9 spec.name: env variable NAME not found",
        "5:12 spec.tables[0]: env variable ONE not found",
        "5:22 spec.tables[1]: env variable TWO not found",
        "5:22 spec.tables[1]: env variable THREE not found",
        "8:23 spec.path: open no.txt: no such file or directory",
        "8:50 spec.version: env variable PRODUCTION_VERSIO not found",
        "8:72 spec: env variable KEY not found",
    ]
    assert "did you mean `PRODUCTION_VERSION`?" in str(caught.value)
    assert "set it, or write `${NAME:-default}`" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("${ NAME }", "env variable  NAME  not found; write `${NAME}`, without spaces"),
        ("${time:brkn123}", "failed to substitute time: invalid time format: brkn123"),
        ("${file:}", "open : "),
        ("${file:./a${N}.txt}", "`${file:./a${N}` has a reference in a reference; write out the inner one"),
        ("${A:-${B}}", "`${A:-${B}` has a reference in a reference"),
        ("${:-x}", "`${:-x}` names no variable"),
        ("${file:/}", "open /: is a directory"),
        ("${BAD}", "env variable BAD is not UTF-8"),
        ("${file:binary.bin}", "file binary.bin is not UTF-8 text (byte 1)"),
    ],
)
def test_references_without_a_value(value, written, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary.bin").write_bytes(b"\xff\xfe")

    with pytest.raises(SpecError) as caught:
        value(f"a: '{written}'", {"NAME": "v", "N": "1", "BAD": "\udcff"})

    assert f"value.yml:8:8 spec.spec.a: {told}" in str(caught.value)


def test_a_missing_variable_hides_no_other_mistake_and_adds_none(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("spec:\n  name: s\n  path: ${P}\n  version: ${V}\n  tables: ${T}\n  destinations: [x]\n  typo: 1\n")

    with pytest.raises(SpecError) as caught:
        load([path], environ={})

    found = [(problem.path, problem.message.split(" ")[0]) for problem in caught.value.problems]
    assert found == [
        ("spec.path", "env"), ("spec.version", "env"), ("spec.tables", "env"), ("spec.destinations[0]", "source"),
        ("spec.typo", "unknown"), ("", "expecting"),
    ]  # fmt: skip


def test_without_an_environment_given_that_of_the_process_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("CATCHMENT_TEST_NAME", "of the process")
    path = tmp_path / "a.yml"
    path.write_text("spec: {name: '${CATCHMENT_TEST_NAME}', registry: python, path: p, tables: [a]}")

    assert load([path], require="relaxed").sources[0].name == "of the process"
