"""How PostgreSQL lets us in: certificates that are checked, and passwords that AWS or Databricks make."""

from __future__ import annotations

import datetime
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from catchment.destinations.postgresql import PostgreSQL
from catchment.errors import PluginError, SpecError
from tests import services
from tests.conftest import needed
from tests.destinations.conftest import people, rows

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates"),
]


@dataclass(frozen=True)
class Encrypted:
    """A server that speaks TLS and asks for a password."""

    url: str
    folder: Path
    place: Path
    """Where the server may read its certificates."""
    settings: str

    def user(self, name, password):
        """Make a role with that password."""
        with psycopg.connect(f"{self.url} password={services.PASSWORD} sslmode=require", autocommit=True) as connection:
            there = connection.execute("select from pg_roles where rolname = %s", (name,)).fetchone()
            statement = psycopg.sql.SQL("{} role {} superuser login password {}")
            verb = psycopg.sql.SQL("alter" if there is not None else "create")
            connection.execute(statement.format(verb, psycopg.sql.Identifier(name), psycopg.sql.Literal(password)))


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory, request):
    """A server with a certificate of a CA of its own, for the name `localhost` alone."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "request"
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    openssl("x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "names", "-out", "server.pem")  # fmt: skip
    place = Path("/tmp") / f"cmtls-{os.getpid()}"
    place.mkdir()
    try:
        for name in ("server.key", "server.pem", "ca.pem"):
            shutil.copy(folder / name, place / name)
            if os.geteuid() == 0:
                os.chown(place / name, 65534, 65534)
        (place / "server.key").chmod(0o600)
        place.chmod(0o755)
        more = f"-c fsync=off -c ssl=on -c ssl_cert_file={place}/server.pem -c ssl_key_file={place}/server.key"
        with needed(request, "postgresql"), services.postgresql_server(more, login="scram-sha-256", tls=True) as server:
            yield Encrypted(f"{server.url} dbname=postgres", folder, place, more)
    finally:
        shutil.rmtree(place)


def opened(url, **more):
    plugin = PostgreSQL.as_plugin()
    try:
        plugin.init({"connection_string": url, **more})
    except BaseException:
        plugin.close()
        raise
    return plugin


def test_a_certificate_of_the_ca_and_the_right_name_is_taken(open_destination, encrypted):
    string = f"{encrypted.url} host=localhost hostaddr=127.0.0.1 password={services.PASSWORD} sslmode=verify-full"
    destination = open_destination(PostgreSQL, connection_string=f"{string} sslrootcert={encrypted.folder}/ca.pem")
    destination.insert(people("tls"), rows(people("tls"), (1, "a")))
    destination.expect(people("tls"), rows(people("tls"), (1, "a")))
    with destination.plugin.destination._connections.lent() as connection:
        assert connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone() == (True,)


@pytest.mark.parametrize(
    ("ca", "host", "words"),
    [("other", "localhost", "certificate verify failed"), ("ca", "127.0.0.1", "does not match host name")],
)
def test_a_certificate_of_another_ca_or_name_is_refused_and_told(encrypted, ca, host, words):
    string = f"{encrypted.url} host={host} hostaddr=127.0.0.1 password={services.PASSWORD} sslmode=verify-full"
    with pytest.raises(PluginError, match=f"the database cannot be reached: .*{words}"):
        opened(f"{string} sslrootcert={encrypted.folder}/{ca}.pem")


def test_a_certificate_of_the_client_is_its_login(open_destination, encrypted, request):
    folder = encrypted.folder
    client = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=postgres", "-keyout", folder / "client.key"]
    for command in (
        ["req", *client, "-out", folder / "client-request"],
        ["x509", "-req", "-in", folder / "client-request", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
         "-CAcreateserial", "-days", "2", "-out", folder / "client.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    (folder / "client.key").chmod(0o600)
    more = f"{encrypted.settings} -c ssl_ca_file={encrypted.place}/ca.pem"
    with needed(request, "postgresql"), services.postgresql_server(more, tls=True) as server:
        server.stop()
        (server.root / "data" / "pg_hba.conf").write_text("hostssl all all all cert\n")
        server.start()
        string = f"{server.url} dbname=postgres host=localhost hostaddr=127.0.0.1 sslmode=verify-full"
        string += f" sslrootcert={folder}/ca.pem"
        with pytest.raises(PluginError, match="requires a valid client certificate"):
            opened(string)
        owned = f"{string} sslcert={folder}/client.pem sslkey={folder}/client.key"
        destination = open_destination(PostgreSQL, connection_string=owned)
        destination.publish(people("tls"), rows(people("tls"), (1, "a")))
        destination.expect(people("tls"), rows(people("tls"), (1, "a")))


def sts(answers):
    """A server on this machine that answers each request as `answers` says; what was asked stands in `asked`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            asked.append((self.path, self.headers.get("authorization", ""), body))
            status, kind, text = answers(self.path, body)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    asked: list[tuple[str, str, str]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, asked


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """AWS credentials, and a clock that stands still: a token is then the same for whoever signs it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = AKIDEFAULT\naws_secret_access_key = s1\n"
        "[special]\naws_access_key_id = AKISPECIAL\naws_secret_access_key = s2\n"
    )
    import botocore.auth

    now = datetime.datetime.now(datetime.UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: now.replace(tzinfo=None))


def signed(host, port, user, region, key="AKIDEFAULT", secret="s1", token=None):
    import boto3

    session = boto3.Session(key, secret, token, region_name=region)
    return session.client("rds").generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user)


def port_of(url):
    return int(dict(pair.split("=") for pair in url.split())["port"])


@pytest.mark.parametrize(
    ("iam", "environment", "host", "port", "region", "key"),
    [
        ({"region": "eu-west-1"}, {}, "127.0.0.1", None, "eu-west-1", ("AKIDEFAULT", "s1")),
        ({"service": "rds"}, {"AWS_DEFAULT_REGION": "us-east-2"}, "127.0.0.1", None, "us-east-2", ("AKIDEFAULT", "s1")),
        ({"region": "eu-west-1", "endpoint": "db.example.com"}, {}, "db.example.com", None, "eu-west-1",
         ("AKIDEFAULT", "s1")),
        ({"region": "eu-west-1", "endpoint": "db.example.com:9"}, {}, "db.example.com", 9, "eu-west-1",
         ("AKIDEFAULT", "s1")),
        ({"region": "eu-west-1", "local_profile": "special"}, {}, "127.0.0.1", None, "eu-west-1",
         ("AKISPECIAL", "s2")),
    ],
    ids=["region", "environment", "host", "host and port", "profile"],
)  # fmt: skip
def test_a_token_that_aws_signs_is_the_password(
    open_destination, encrypted, aws, monkeypatch, iam, environment, host, port, region, key
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    port = port or port_of(encrypted.url)
    encrypted.user("iam", signed(host, port, "iam", region, *key))
    string = f"{encrypted.url} user=iam sslmode=require"
    destination = open_destination(PostgreSQL, connection_string=string, aws_iam_auth=iam)
    destination.insert(people("iam_rows"), rows(people("iam_rows"), (1, "a")))
    destination.expect(people("iam_rows"), rows(people("iam_rows"), (1, "a")))
    encrypted.user("other", "another password")
    with pytest.raises(PluginError, match="password authentication failed"):
        opened(f"{encrypted.url} user=other sslmode=require", aws_iam_auth=iam)


def test_a_role_is_assumed_before_signing(open_destination, encrypted, aws, monkeypatch):
    expires = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def answer(path, body):
        return 200, "text/xml", (
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
            f"<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s3</SecretAccessKey><SessionToken>t3</SessionToken>"
            f"<Expiration>{expires}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )  # fmt: skip

    server, asked = sts(answer)
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.server_port}")
        port = port_of(encrypted.url)
        encrypted.user("iam", signed("127.0.0.1", port, "iam", "eu-west-1", "ASIAROLE", "s3", "t3"))
        role = {"role_arn": "arn:aws:iam::1:role/r", "role_session_name": "nightly", "external_id": "e1"}
        destination = open_destination(
            PostgreSQL, connection_string=f"{encrypted.url} user=iam sslmode=require",
            aws_iam_auth={"region": "eu-west-1", **role},
        )  # fmt: skip
        destination.insert(people("role_rows"), rows(people("role_rows"), (1, "a")))
        destination.expect(people("role_rows"), rows(people("role_rows"), (1, "a")))
    finally:
        server.shutdown()
        server.server_close()
    # Once, though several connections were signed for.
    [(_, authorization, body)] = asked
    said = {key: values[0] for key, values in urllib.parse.parse_qs(body).items()}
    assert (said["RoleArn"], said["RoleSessionName"], said["ExternalId"]) == ("arn:aws:iam::1:role/r", "nightly", "e1")
    assert "AKIDEFAULT" in authorization


@pytest.mark.parametrize("option", [{"aws_iam_auth": {"region": "r"}}, {"lakebase": {"endpoint": "projects/p"}}])
@pytest.mark.parametrize("mode", ["", "sslmode=prefer", "sslmode=disable"])
def test_a_token_never_travels_in_the_clear(encrypted, option, mode):
    with pytest.raises(PluginError, match=f"`{next(iter(option))}` needs an encrypted connection, .*set `sslmode`"):
        opened(f"{encrypted.url} user=iam {mode}", **option)


def test_a_region_that_nobody_says_is_asked_for(encrypted, aws):
    with pytest.raises(PluginError, match=r"region of the database is not known.*`aws_iam_auth.region`"):
        opened(f"{encrypted.url} user=iam sslmode=require", aws_iam_auth={})


def test_a_profile_that_is_not_there_is_named(encrypted, aws):
    with pytest.raises(PluginError, match="nobody"):
        opened(f"{encrypted.url} user=iam sslmode=require", aws_iam_auth={"region": "r", "local_profile": "nobody"})


def test_databricks_is_asked_for_the_password_of_each_connection(open_destination, encrypted, monkeypatch):
    def answer(path, body):
        key = "access_token" if path == "/oidc/v1/token" else "token"
        return 200, "application/json", json.dumps({key: "access" if key == "access_token" else "lent password"})

    server, asked = sts(answer)
    try:
        encrypted.user("lake", "lent password")
        monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("DATABRICKS_CLIENT_ID", "client")
        monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "not told")
        destination = open_destination(
            PostgreSQL, connection_string=f"{encrypted.url} user=lake sslmode=require",
            lakebase={"endpoint": "projects/p/branches/b/endpoints/e", "client_secret": "hidden"},
        )  # fmt: skip
        assert "hidden" in destination.plugin.secrets
        connections = destination.plugin.destination._connections
        with connections.lent() as first:
            pid = first.info.backend_pid
        with connections.lent() as again:
            assert again.info.backend_pid == pid
        monkeypatch.setattr(connections, "_lifetime_s", 0.01)
        time.sleep(0.02)
        with connections.lent() as young:
            assert young.info.backend_pid != pid
    finally:
        server.shutdown()
        server.server_close()
    assert [path for path, _, _ in asked] == ["/oidc/v1/token", "/api/2.0/postgres/credentials"] * 2
    assert urllib.parse.parse_qs(asked[0][2]) == {"grant_type": ["client_credentials"], "scope": ["all-apis"]}
    assert asked[1][1:] == ("Bearer access", '{"endpoint":"projects/p/branches/b/endpoints/e"}')


def test_what_databricks_refuses_is_told_without_the_secret(encrypted):
    server, _ = sts(lambda path, body: (401, "application/json", '{"error":"invalid_client"}'))
    try:
        lakebase = {"endpoint": "e", "host": f"http://127.0.0.1:{server.server_port}", "client_id": "c",
                    "client_secret": "hidden"}  # fmt: skip
        with pytest.raises(PluginError, match=r"Databricks lends no password: 401 .*invalid_client") as caught:
            opened(f"{encrypted.url} user=lake sslmode=require", lakebase=lakebase)
        assert "hidden" not in str(caught.value)
    finally:
        server.shutdown()
        server.server_close()


def test_a_workspace_that_nobody_says_is_asked_for(encrypted):
    with pytest.raises(PluginError, match=r"`lakebase.host` is not set.*`DATABRICKS_HOST`"):
        opened(f"{encrypted.url} user=lake sslmode=require", lakebase={"endpoint": "e"})


def test_two_makers_of_passwords_are_one_too_many():
    with pytest.raises(SpecError, match="`lakebase` and `aws_iam_auth` both make the password"):
        opened("host=x", lakebase={"endpoint": "e"}, aws_iam_auth={})
