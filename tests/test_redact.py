"""What is known to be secret stays out of texts, values and log records."""

from __future__ import annotations

import json
import logging
from typing import Annotated

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from catchment.errors import SpecError
from catchment.redact import HIDDEN, RedactingFilter, Redactor
from catchment.spec.fields import Secret, Spec, parse_spec, secrets_of


def test_secrets_are_replaced_longest_first():
    redactor = Redactor(["hunter", "hunter22"])

    assert redactor.text("hunter22 and hunter2") == f"{HIDDEN} and {HIDDEN}2"


@pytest.mark.parametrize("password", ["p@ss/w:rd?", "plain-one"])
@pytest.mark.parametrize("ending", ["tcp(127.0.0.1:3306)/d?tls=false", "unix(/run/s)/d", "/d"])
def test_the_password_of_a_connection_string_of_the_go_driver_is_a_secret_by_itself(password, ending):
    redactor = Redactor([f"user:{password}@{ending}"])

    assert redactor.text(f"login of user with {password} failed") == f"login of user with {HIDDEN} failed"


WORDS = ("true", "false", "null", "none")


@pytest.mark.parametrize("value", ["", "abc", "   ", "true", "False", "NULL", "none"])
def test_short_values_and_words_that_tell_nothing_stay(value):
    text = "abc true False NULL none    x"

    assert Redactor([value]).text(text) == text


@given(st.text(min_size=4).filter(lambda text: len(text.strip()) >= 4 and text.strip().lower() not in WORDS))
@example("a'b\"c\\d\n")
@example("p@ss/word?#%&;=")
@example("two\nlines of it")
def test_a_secret_is_found_however_it_is_quoted(secret):
    redactor = Redactor([secret])

    for shown in (secret, repr(secret), json.dumps(secret), f"x{secret}y", secret.strip()):
        assert secret.strip() not in redactor.text(shown) or secret.strip() in HIDDEN


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("s3cret word", "user:s3cret%20word@host"),
        ("s3cret word", "pw=s3cret+word"),
        ("p%40ssw0rd", "the password p@ssw0rd is wrong"),
        ("-----BEGIN KEY-----\nMIIabcdefgh\n-----END KEY-----\n", "bad line MIIabcdefgh"),
        ("-----BEGIN KEY-----\nMIIabcdefgh\n", "bad key -----BEGIN KEY-----\\nMIIabcdefgh"),
        ('{"user": "me", "auth": {"key": "k-12345"}}', "no access with k-12345"),
        ("postgresql://user:hunter2@host/db", "no login with hunter2"),
        ("postgresql://user:p@ss/w0rd@host/db", 'database "w0rd@host/db" does not exist'),
        ("postgresql://host/db?user=u&password=hunter2&x=y", "no login with hunter2"),
        ("host=h password=hunter2 port=1", "no login with hunter2"),
        (r"host=h password='hunter \'2' port=1", "no login with hunter '2"),
        ("host=h password=my secret port=1", 'missing "=" after "secret"'),
        ("Server=h;Pwd=hunter2;Port=1", "no login with hunter2"),
        ("md:db?motherduck_token=hunter2", "no login with hunter2"),
    ],
)
def test_the_parts_of_a_secret_that_an_error_may_name(secret, text):
    shown = Redactor([secret]).text(text)

    assert HIDDEN in shown
    assert not any(part in shown for part in ("hunter", "secret", "s3cret", "w0rd", "ssw0rd", "MIIabc", "k-12345"))


def test_values_are_replaced_at_every_depth_and_numbers_stay():
    redactor = Redactor(["hunter2", "1234"])

    shown = redactor.value({"hunter2": ["a hunter2", {"x": ("hunter2",)}], "n": 1234, "b": True, "z": None})

    assert shown == {HIDDEN: [f"a {HIDDEN}", {"x": [HIDDEN]}], "n": 1234, "b": True, "z": None}


class Wire:
    def __repr__(self):
        return "Wire(hunter2)"


def test_a_log_record_has_no_secret_in_any_part(caplog):
    log = logging.getLogger("catchment.of_this_test")
    with Redactor(["hunter2"]).guarding("catchment.of_this_test"):
        try:
            raise ValueError("it was hunter2")
        except ValueError:
            fields = {"url": "x hunter2", "parts": ["hunter2"], "wire": Wire(), "n": 3}
            log.exception("login %s with %s", "me", "hunter2", extra=fields, stack_info=True)

    (record,) = caplog.records
    assert record.getMessage() == f"login me with {HIDDEN}"
    assert record.exc_text.endswith(f"ValueError: it was {HIDDEN}")
    assert (record.url, record.parts, record.wire, record.n) == (f"x {HIDDEN}", [HIDDEN], f"Wire({HIDDEN})", 3)
    assert "hunter2" not in repr(vars(record)).replace("'hunter2', extra", "")


def test_guarding_ends_with_its_body(caplog):
    log = logging.getLogger("catchment.of_this_test")
    with Redactor(["hunter2"]).guarding("catchment"):
        log.error("inside hunter2")
    log.error("outside hunter2")

    assert [record.getMessage() for record in caplog.records] == [f"inside {HIDDEN}", "outside hunter2"]


def test_a_record_whose_arguments_do_not_fit_is_still_shown():
    record = logging.makeLogRecord({"msg": "%d rows of hunter2", "args": ("many",)})

    assert RedactingFilter(Redactor(["hunter2"])).filter(record)
    assert record.getMessage() == f"%d rows of {HIDDEN} ('many',)"


def _short(value: Secret) -> Secret:
    if len(value.reveal()) > 8:
        raise ValueError(f"the key {value.reveal()} is too long")
    return value


class Inner(Spec):
    key: Annotated[Secret, AfterValidator(_short)] = Secret("")


class Outer(Spec):
    inner: Inner = Inner()
    several: tuple[Secret, ...] = ()
    by_name: dict[str, Secret] = Field(default_factory=dict)
    url: str = ""
    count: int = 0


def test_the_secrets_of_a_spec():
    value = {
        "inner": {"key": "key-1"}, "several": ["key-2", "key-3"], "by_name": {"a": "key-4"},
        "url": "https://me:key-5@host/",
    }  # fmt: skip

    found = secrets_of(parse_spec(Outer, value, where="x"))

    assert {"key-1", "key-2", "key-3", "key-4", "key-5"} <= found
    assert not any("host" in secret or secret == "me" for secret in found)


def test_a_wrong_spec_shows_no_secret():
    value = {
        "inner": {"key": "hunter2-too-long"}, "several": [["hunter22"]], "by_name": {"a": ["hunter23"]},
        "count": "https://me:hunter24@host/", "url": 7,
    }  # fmt: skip

    with pytest.raises(SpecError) as caught:
        parse_spec(Outer, value, where="x")

    text = str(caught.value)
    assert "hunter2" not in text
    assert f"the key {HIDDEN} is too long" in text
    assert "spec.spec.url: x: expected a text, got 7" in text


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "secret",
    [
        "x" * 1_000_000,
        # Fewer of these show as well whether the time grows with the square.
        "a:b@" * 50_000,
        "password=" + "a b " * 50_000,
        "token" * 40_000,
        "\n".join(["line of it"] * 20_000),
    ],
    ids=["letters", "addresses", "words", "keys", "lines"],
)
def test_a_secret_as_long_as_a_file_may_be_is_learnt_and_hidden(secret):
    redactor = Redactor([secret])

    assert redactor.text(f"it is {secret}, no less") == f"it is {HIDDEN}, no less"
