"""Whatever a config file holds, it ends in a config or in an error: soon, and in little memory."""

from __future__ import annotations

import json
import resource
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catchment.errors import SpecError
from catchment.spec import nodes
from catchment.spec.load import load, load_documents
from catchment.spec.schema import config_schema

HEAD = "kind: source\nspec:\n  name: s\n  registry: python\n  path: p\n  tables: [a]\n  spec:\n"


def lines(count, text):
    return "".join(text.format(i=i, next=i + 1) for i in range(count))


ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + lines(
    20, "a{next}: &a{next} [*a{i}, *a{i}, *a{i}, *a{i}, *a{i}, *a{i}, *a{i}, *a{i}, *a{i}]\n"
)
MERGE_BOMB = "a0: &a0 {{k: v}}\n".replace("{{", "{").replace("}}", "}") + lines(
    30, "a{next}: &a{next}\n  b: *a{i}\n  c: *a{i}\n  <<: [*a{i}, *a{i}]\n"
)
LONG_TEXT_BOMB = f"a: &a {'x' * 1_000_000}\nb: [{'*a, ' * 90_000}]\n"
LONG_KEY_BOMB = f"? {'k' * 1_000_000}\n: {{{'a: {b: c}, ' + lines(20_000, 'k{i}: 1, ')}}}\n"
LONG_PATHS = lines(60, "{{? " + "k" * 1000 + "\n : ") + f"[{'1, ' * 90_000}]" + "}" * 60

HOSTILE = {
    "alias bomb": (ALIAS_BOMB, "more than 100,000 values, counting each use of an alias"),
    "merge bomb": (MERGE_BOMB, "more than 100,000 values, counting each use of an alias"),
    "a long text used often": (LONG_TEXT_BOMB, "more than 50,000,000 characters"),
    "a long key with much below": (LONG_KEY_BOMB, ""),
    "long paths": (LONG_PATHS, ""),
    "an alias in itself": ("a: &a [1, *a]\n", "alias `*a` stands inside what it repeats"),
    "an alias deep in itself": ("a: &a {b: [{c: *a}]}\n", "alias `*a` stands inside what it repeats"),
    "a merge of itself": ("a: &a {<<: *a}\n", "alias `*a` stands inside what it repeats"),
    "deep lists": ("[" * 200_000, "more than 64 levels"),
    "deep lists that end": ("[" * 1000 + "]" * 1000, "more than 64 levels"),
    "deep mappings": ("{a: " * 200_000, "more than 64 levels"),
    "deep blocks": ("- " * 200_000, "more than 64 levels"),
    "deep keys": ("? " * 200_000, "more than 64 levels"),
    "deep by aliases": (
        "a0: &a0 x\n" + lines(100, "a{next}: &a{next} [*a{i}]\n"),
        "more than 64 levels",
    ),
    "many values": (f"[{'1, ' * 300_000}]", "more than 100,000 values"),
    "many documents": ("a: 1\n---\n" * 60_000, "more than 1,000 documents"),
    "many keys": (lines(45_000, "k{i}: 1\n"), "unknown field"),
    "many equal keys": ("k: 1\n" * 49_000, "unknown field"),
    "many missing variables": (f"[{'${{NONE}}, ' * 50_000}]".replace("{{", "{").replace("}}", "}"),
                               "more than 100 `${…}` without a value"),
    "many tag directives": (lines(60_000, "%TAG !a{i}! b\n") + "--- a\n", "more than 100 `%TAG` directives"),
    "a large file": ("# x" + " " * 10_000_000, "is larger than 10,000,000 bytes"),
    "a long line of brackets": ("]" * 1_000_000, "is no valid YAML"),
    "a long number": (f"a: {'9' * 1_000_000}\n", "unknown field"),
    "a long fraction": (f"a: 0.{'9' * 1_000_000}\n", "unknown field"),
    "a long row of underscores": (f"a: 1{'_' * 1_000_000}x\n", "unknown field"),
    "open references": ("a: " + "${" * 500_000 + "\n", "unknown field"),
    "many anchors": (lines(90_000, "- &a{i} x\n"), "expected a mapping"),
    "open references without a line's end": ("a: " + "${" * 500_000 + "\r}", "is no valid YAML"),
    "references as they are kept inside": ("a: \U000f0024\U000f007b\n", "has characters of a private range"),
    "nothing but quotes": ("'" * 1_000_001, "is no valid YAML"),
    "a byte of zero": ("a: \0", "is no valid YAML: the character '\\x00' is not allowed"),
}  # fmt: skip


def bounded(path, environ=None):
    """The error of a config; in at most 10 seconds and 300 MB, of which a fraction is usual."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(SpecError) as caught:
        load([path], environ=environ or {})
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_ends_in_an_error(tmp_path, name):
    text, message = HOSTILE[name]
    path = tmp_path / "c.yml"
    path.write_text(text)

    found = bounded(path)

    assert message in found
    assert str(path) in found
    assert len(found) < 100_000


@pytest.mark.parametrize("written", ["${V}", "'${V}'", "x${V}", "[${V}, ${V}]"])
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[" * 1000 + "]" * 1000, "{a: " * 1000, f"[{'1,' * 200_000}]", ALIAS_BOMB, f"[{'&a [*a],' * 9}]"],
)
def test_hostile_values_from_outside_stay_texts_or_end_in_an_error(tmp_path, written, text):
    path = tmp_path / "c.yml"
    path.write_text(f"{HEAD}    a: {written}\n  typo: 1\n")

    found = bounded(path, {"V": text})

    assert 'unknown field "typo"' in found or "more than" in found


def test_a_reference_used_very_often_is_bounded(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(f"{HEAD}    a: [{'${V}, ' * 90_000}]\n")
    assert "more than 50,000,000 characters" in bounded(path, {"V": "x" * 100_000})

    path.write_text(f"{HEAD}    a: '{'${V}' * 90_000}'\n")
    assert "more than 50,000,000 characters" in bounded(path, {"V": "x" * 100_000})


def test_an_endless_file_is_not_read_to_its_end(tmp_path):
    (tmp_path / "c.yml").symlink_to("/dev/zero")
    assert "is larger than 10,000,000 bytes" in bounded(tmp_path / "c.yml")

    path = tmp_path / "d.yml"
    path.write_text(f"{HEAD}    a: ${{file:/dev/zero}}\n")
    assert "file /dev/zero is larger than 1,000,000 bytes" in bounded(path)


def test_the_limits_are_far_from_a_real_config(tmp_path):
    path = tmp_path / "c.yml"
    nested = "".join("  " * (depth + 2) + "k:\n" for depth in range(50)) + "  " * 54 + "x: 1\n"
    path.write_text(f"{HEAD}{nested}    list: [{', '.join(map(str, range(50_000)))}]\n")

    assert len(load([path], require="relaxed").sources[0].spec["list"]) == 50_000


FRAGMENTS = st.sampled_from(
    ["kind", "spec", "source", "name", "tables", ": ", ":", "- ", "\n", "\n  ", "\n---\n", "{", "}", "[", "]", ", ",
     "'", '"', "|", ">", "|-", "&a ", "*a", "<<: ", "!!int ", "!!binary ", "!x ", "? ", "# ", "${", "${A}", "${B:-c}",
     "${$}", "${file:x}", "${time:now|", "}", "%TAG", "\t", "5", "0x", "1_0", "yes", "~", ".inf", "é", "😀", "\\",
     "\x85", "x"]
)  # fmt: skip


def refusal(path, value):
    """What is wrong with a config, whose `${A}` and `${V}` are `value`."""
    try:
        load([path], require="relaxed", environ={"A": value, "V": value})
    except SpecError as error:
        return error
    return None


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(st.lists(FRAGMENTS, max_size=40).map("".join), st.text(max_size=80)), value=st.text(max_size=20))
@example(text="a: ${A}", value="[")
@example(text="<<: ${A}", value="{a: 1}")
@example(text="kind: ${A}", value="[1]")
@example(text="spec: {${A}: 1}", value="")
def test_any_text_gives_a_config_or_an_error(tmp_path_factory, text, value):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    error = refusal(path, value)

    assert error is None or (str(error) and all(problem.message for problem in error.problems))


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60))
def test_any_bytes_give_a_config_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.yml"
    path.write_bytes(content)

    with pytest.raises(SpecError):
        load([path], environ={})


# Without characters that YAML 1.1 takes for line ends or does not allow, and the private one that stands for `$` while
# a file is read: one that has it in front of a brace is refused.
TEXTS = st.text(
    st.characters(
        codec="utf-8",
        exclude_categories=["Cc", "Cs"],
        exclude_characters="\u2028\u2029\ufeff\ufffe\uffff\U000f0024",
    )
)
KEYS = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=5)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def same(value):
    """What JSON knows of a value: whole floats are whole numbers."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, list):
        return [same(item) for item in value]
    return {key: same(item) for key, item in value.items()} if isinstance(value, dict) else value


@settings(max_examples=300, deadline=None)
@given(value=JSON)
def test_any_json_is_read_as_it_is(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.json"
    spec = {"name": "s", "registry": "python", "path": "p", "tables": ["a"], "spec": {"v": value}}
    path.write_text(json.dumps({"spec": spec}, ensure_ascii=False).replace("${", "$ {"))
    expected = json.loads(json.dumps(value, ensure_ascii=False).replace("${", "$ {"))

    found = load([path], require="relaxed", environ={}).sources[0].spec

    assert found == {"v": same(expected)}


@settings(max_examples=300, deadline=None)
@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
@example(value="[]#")
@example(value="{a: b}\n---")
@example(value="'a' 'b'")
def test_any_text_from_outside_is_exact_in_quotes(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "exact.yml"
    path.write_text(
        f"{HEAD}    a: '${{V}}'\n    b: x${{V}}y\n    c: {{k: \"${{V}}\"}}\n    d: |-\n      ${{V}}\n    e: 1\n"
    )

    assert load([path], require="relaxed", environ={"V": value}).sources[0].spec == {
        "a": value, "b": f"x{value}y", "c": {"k": value}, "d": value, "e": 1,
    }  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_text_from_outside_changes_nothing_around_it_when_plain(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "plain.yml"
    path.write_text(f"{HEAD}    a: ${{V}}\n    b: [${{V}}]\n    e: 1\n")
    error = refusal(path, value)
    if error is not None:
        assert "expected a finite number" in str(error)
        return

    found = load([path], require="relaxed", environ={"V": value}).sources[0].spec
    assert set(found) == {"a", "b", "e"}
    assert found["b"] == [found["a"]]
    if isinstance(found["a"], str):
        assert found["a"] in (value, value.strip(), value.strip()[1:-1]) or value.strip()[:1] in "'\""


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"name": "a\ud800b"}, "spec.name"),
        ({"name": "s", "spec": {"list": ["a", {"deep": "\udfff"}]}}, "spec.spec.list[1].deep"),
        ({"name": "s", "spec": {"k\ud800": 1}}, "spec.spec.k\\ud800"),
    ],
)
def test_half_a_surrogate_pair_in_a_program_is_an_error_with_its_path(spec, path):
    document = {"kind": "source", "spec": {"registry": "python", "path": "p", "tables": ["a"], **spec}}
    with pytest.raises(SpecError) as caught:
        load_documents([document])

    assert f"{path}: is no text: it has half of a surrogate pair" in str(caught.value)
    str(caught.value).encode()


def test_without_the_c_parser_everything_is_read_alike(tmp_path, monkeypatch):
    import yaml

    path = tmp_path / "c.yml"
    path.write_text(
        f"{HEAD}    a: [${{V}}, {{b: *x}}]\n".replace("*x", "'é'") + "    d: |\n      x\n      y\n  typo: 1\n"
    )
    found = []
    for loader in (yaml.CSafeLoader, yaml.SafeLoader):
        monkeypatch.setattr(nodes, "_LOADER", loader)
        with pytest.raises(SpecError) as caught:
            load([path], environ={"V": "5"})
        found.append(str(caught.value))

    assert found[0] == found[1]


def test_the_schema_is_made_in_no_time():
    started = time.monotonic()
    config_schema()

    assert time.monotonic() - started < 2
