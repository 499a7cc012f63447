"""How MySQL and MariaDB are reached: connection strings, options, logins, and what a server may not be given."""

from __future__ import annotations

import shutil
import subprocess

import pyarrow as pa
import pytest

from catchment.destinations.mysql import MySQL
from catchment.destinations.mysql.connection import run
from catchment.destinations.mysql.place import parse
from catchment.errors import PluginError, SpecError
from catchment.messages import MigrateTable
from catchment.sdk import Column
from tests import services
from tests.conftest import needed
from tests.destinations.conftest import connected_to, people, rows


@pytest.fixture
def destination(open_destination, mysql_dsn):
    return open_destination(MySQL, connection_string=mysql_dsn)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("u:p@tcp(h:1)/d", ("u", "p", "h", 1, "d")),
        ("u:p@ss/w:o?rd@tcp(h)/d", ("u", "p@ss/w:o?rd", "h", 3306, "d")),
        ("u@/d", ("u", "", "127.0.0.1", 3306, "d")),
        ("/d%2Fe", ("", "", "127.0.0.1", 3306, "d/e")),
        ("u:p@tcp([::1]:3307)/d?parseTime=true&tls=false", ("u", "p", "::1", 3307, "d")),
        ("mysql://u:p%40x@h:33/d?timeout=5s", ("u", "p@x", "h", 33, "d")),
        ("mariadb://u@h/d", ("u", "", "h", 3306, "d")),
    ],
)
def test_connection_strings_are_read_as_the_go_driver_reads_them(text, wanted):
    place = parse(text)
    assert (place.user, place.password, place.host, place.port, place.database) == wanted


def test_options_of_a_connection_string_are_obeyed(open_destination, mysql_dsn):
    place = parse(
        "u@unix(/run/s)/d?tls=skip-verify&timeout=1m30s&readTimeout=0&charset=latin1&max_execution_time=7&loc=UTC"
    )
    assert (place.socket, place.tls, place.timeout_s, place.read_timeout_s) == ("/run/s", "skip-verify", 90.0, None)
    assert place.variables == {"max_execution_time": "7"}
    destination = open_destination(
        MySQL, connection_string=f"{mysql_dsn}?group_concat_max_len=77&sql_mode=''&charset=latin1"
    )
    with destination.plugin.destination._connections.lent() as connection, connection.cursor() as cursor:
        cursor.execute("select @@group_concat_max_len, @@sql_mode like '%STRICT%', @@character_set_client")
        assert cursor.fetchall() == ((77, 1, "utf8mb4"),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hunter2-password", "has no `/`"),
        ("u:hunter2@tcp(h)/", "names no database"),
        ("u:hunter2@tcp(h:x)/d", "cannot be read"),
        ("u:hunter2@pipe(h)/d", "`tcp`, `unix`"),
        ("u:hunter2@tcp(h)/d?tls=maybe", "`skip-verify`"),
        ("u:hunter2@tcp(h)/d?timeout=soon", "duration"),
        ("u:hunter2@tcp(h)/d?a;b=1", "session variable"),
    ],
)
def test_connection_strings_that_are_none_are_refused_without_being_shown(open_destination, text, reason):
    with pytest.raises(SpecError, match=reason) as caught:
        open_destination(MySQL, connection_string=text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda dsn: dsn.replace("root@", "nobody:wrong-password@"), "check user and password"),
        (lambda dsn: dsn.rpartition("/")[0] + "/no_such_database", "make the database first"),
        (lambda dsn: "root@tcp(127.0.0.1:1)/d", "cannot be reached"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_with_what_to_do(open_destination, mysql_dsn, change, hint):
    with pytest.raises(PluginError, match=hint) as caught:
        open_destination(MySQL, connection_string=change(mysql_dsn))
    assert "wrong-password" not in str(caught.value)


def test_a_user_with_a_password_and_rights_on_one_database_is_enough(open_destination, mysql_dsn, ask_mysql):
    place = parse(mysql_dsn)
    ask_mysql(f"create user 'u_{place.database}'@'%' identified by 'pass:w@rd/?'")
    ask_mysql(f"grant select, insert, update, delete, create, drop, alter, index, create temporary tables, references "
              f"on {place.database}.* to 'u_{place.database}'@'%'")  # fmt: skip
    dsn = mysql_dsn.replace("root@", f"u_{place.database}:pass:w@rd/?@")
    destination = open_destination(MySQL, connection_string=dsn)
    table = people("people", Column("u", pa.int64(), unique=True))
    for number in range(2):
        destination.publish(table, rows(table, (1, "a", 1), (2, "b", number + 5)))
    wider = people("people", Column("u", pa.int64(), unique=True), ("more", pa.utf8()))
    destination.insert(wider, rows(wider, (3, "c", 9, "x")))
    destination.insert(table, rows(table, (3, "d", 9)))
    assert ask_mysql("select id, name, u, more from people order by id") == [
        (1, "a", 1, None),
        (2, "b", 6, None),
        (3, "d", 9, None),
    ]


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates")
def test_a_connection_is_encrypted_and_its_certificate_checked_as_the_string_says(open_destination, request, tmp_path):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert",
               "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with (
        needed(request, "mariadb"),
        services.mariadb(f"--ssl-cert={tmp_path}/cert", f"--ssl-key={tmp_path}/key") as server,
    ):
        server.run("create database d")
        string = server.dsn("d").replace("127.0.0.1", "localhost")
        for option, is_encrypted in (("preferred", True), ("skip-verify", True), ("false", False)):
            destination = open_destination(MySQL, connection_string=f"{string}?tls={option}")
            destination.insert(people(), rows(people(), (1, "a")))
            with destination.plugin.destination._connections.lent() as connection:
                [(_, cipher)] = run(connection, "show session status like 'Ssl_cipher'")
                assert bool(cipher) is is_encrypted
        with pytest.raises(PluginError, match="certificate verify failed"):
            open_destination(MySQL, connection_string=f"{string}?tls=true")


def test_a_server_that_takes_no_local_files_is_told_with_what_to_do(destination, ask_mysql):
    table = people()
    destination.write(MigrateTable(table))
    ask_mysql("set global local_infile = off")
    try:
        with pytest.raises(PluginError, match="local_infile"):
            destination.insert(table, rows(table, (1, "a")))
    finally:
        ask_mysql("set global local_infile = on")


def test_a_server_that_asks_for_a_file_of_ours_does_not_get_it(destination, mysql_dsn, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine\n")
    with destination.plugin.destination._connections.lent() as connection, connected_to(mysql_dsn) as other:
        other.cursor().execute("create table taken (x text)")
        with pytest.raises(RuntimeError, match="local_infile"):
            connection.cursor().execute(f"load data local infile '{secret}' into table taken")
        connection.close()
        with other.cursor() as cursor:
            cursor.execute("select * from taken")
            assert cursor.fetchall() == ()
