"""Passwords that are made for each connection: signed by AWS, or lent by Databricks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from catchment.destinations.postgresql.spec import AWSIAMAuth, Lakebase, PostgreSQLSpec
from catchment.sdk import PluginError, Transient

Settings: TypeAlias = Mapping[str, str]
"""Settings of libpq by their names."""
Password: TypeAlias = Callable[[Settings], str]
"""The password for a connection with these settings."""

LAKEBASE_LIFETIME_S = 45 * 60.0
"""Seconds after which a connection to Lakebase is not used again: its tokens last for an hour."""
_ENCRYPTED = ("require", "verify-ca", "verify-full")
_ROLE_SECONDS = 3_600
_REQUEST_TIMEOUT_S = 60.0


def password_of(spec: PostgreSQLSpec) -> Password | None:
    """What makes the password of each connection; None where the connection string has it."""
    if spec.aws_iam_auth is not None:
        return _Signed(spec.aws_iam_auth)
    return _Lent(spec.lakebase) if spec.lakebase is not None else None


def _check_encrypted(settings: Settings, option: str) -> None:
    """Raises `PluginError` where the token could travel in the clear."""
    mode = settings.get("sslmode", os.environ.get("PGSSLMODE", "prefer"))
    host = settings.get("host", os.environ.get("PGHOST", ""))
    if mode not in _ENCRYPTED or not host or host.startswith("/"):
        raise PluginError(
            f"`{option}` needs an encrypted connection, and the connection string has `sslmode` {mode!r} for the host "
            f"{host!r}",
            hint="set `sslmode` to `require`, `verify-ca` or `verify-full` in `connection_string`",
        )


class _Signed:
    """Tokens of Amazon RDS (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html)."""

    def __init__(self, spec: AWSIAMAuth) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._session: Any = None
        self._expires: datetime | None = None

    def __call__(self, settings: Settings) -> str:
        _check_encrypted(settings, "aws_iam_auth")
        if "," in settings["host"]:
            raise PluginError("`aws_iam_auth` signs for one host", hint="name one in `connection_string`")
        host, _, port = self._spec.endpoint.partition(":")
        session = self._signed_in()
        token = session.client("rds").generate_db_auth_token(
            DBHostname=host or settings["host"],
            Port=int(port or settings.get("port", os.environ.get("PGPORT", "5432"))),
            DBUsername=settings.get("user", os.environ.get("PGUSER", "")),
        )
        return str(token)

    def _signed_in(self) -> Any:
        """A session of the AWS SDK whose credentials last for a while."""
        try:
            import boto3
            from botocore import exceptions
        except ImportError as error:
            raise PluginError("the AWS SDK is not installed", hint="pip install 'catchment[aws]'") from error
        with self._lock:
            if self._session is not None and (self._expires is None or datetime.now(UTC) < self._expires):
                return self._session
            spec = self._spec
            try:
                session = boto3.Session(profile_name=spec.local_profile or None, region_name=spec.region or None)
                if session.region_name is None:
                    raise PluginError(
                        "the AWS region of the database is not known",
                        hint="set `aws_iam_auth.region`, or the environment variable `AWS_REGION`",
                    )
                self._session = self._assumed(boto3, session) if spec.role_arn else session
            except (exceptions.BotoCoreError, exceptions.ClientError) as error:
                raise PluginError(f"AWS gives no credentials to sign with: {error}") from error
            return self._session

    def _assumed(self, boto3: Any, session: Any) -> Any:
        more = {"ExternalId": self._spec.external_id} if self._spec.external_id else {}
        role = session.client("sts").assume_role(
            RoleArn=self._spec.role_arn,
            RoleSessionName=self._spec.role_session_name or "catchment",
            DurationSeconds=_ROLE_SECONDS,
            **more,
        )["Credentials"]
        self._expires = role["Expiration"].astimezone(UTC) - timedelta(minutes=5)
        return boto3.Session(
            aws_access_key_id=role["AccessKeyId"],
            aws_secret_access_key=role["SecretAccessKey"],
            aws_session_token=role["SessionToken"],
            region_name=session.region_name,
        )


class _Lent:
    """Tokens of Databricks (https://docs.databricks.com/api/postgres/v1/generate-database-credential)."""

    def __init__(self, spec: Lakebase) -> None:
        self._spec = spec

    def __call__(self, settings: Settings) -> str:
        import httpx

        _check_encrypted(settings, "lakebase")
        spec, host = self._spec, self._said("host", "DATABRICKS_HOST").rstrip("/")
        client_id = self._said("client_id", "DATABRICKS_CLIENT_ID")
        secret = spec.client_secret.reveal() or os.environ.get("DATABRICKS_CLIENT_SECRET", "")
        base = host if "://" in host else f"https://{host}"
        try:
            with httpx.Client(base_url=base, timeout=_REQUEST_TIMEOUT_S) as web:
                asked = {"grant_type": "client_credentials", "scope": "all-apis"}
                access = _answer(web.post("/oidc/v1/token", data=asked, auth=(client_id, secret)), "access_token")
                headers = {"Authorization": f"Bearer {access}"}
                lent = web.post("/api/2.0/postgres/credentials", json={"endpoint": spec.endpoint}, headers=headers)
                return _answer(lent, "token")
        except httpx.TransportError as error:
            raise Transient(f"Databricks at {base!r} cannot be reached: {error}") from error

    def _said(self, key: str, variable: str) -> str:
        value = str(getattr(self._spec, key)) or os.environ.get(variable, "")
        if not value:
            raise PluginError(
                f"`lakebase.{key}` is not set",
                hint=f"write it in the config, or set the environment variable `{variable}`",
            )
        return value


def _answer(response: Any, key: str) -> str:
    """A text of Databricks' answer. Raises `Transient` while it is busy, else `PluginError`."""
    if response.status_code == 429 or response.status_code >= 500:
        raise Transient(f"Databricks answers {response.status_code}")
    if response.is_error:
        raise PluginError(f"Databricks lends no password: {response.status_code} {response.text[:300]}")
    found = response.json().get(key)
    if not isinstance(found, str):
        raise PluginError(f"Databricks lends no password: its answer has no `{key}`")
    return found
