"""What a config says of the postgresql destination."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from catchment.sdk import BatchSpec, Secret, Spec
from catchment.sdk.staging import CQ_ID

DIMENSIONS = {"text-embedding-3-small": 1_536, "text-embedding-3-large": 3_072}
"""Numbers in a vector of each model (https://platform.openai.com/docs/guides/embeddings)."""

Name = Annotated[str, Field(min_length=1)]


class EmbeddedTable(Spec):
    """A table whose rows get embeddings, and the table that these go to."""

    source_table_name: Name
    """Table whose texts are embedded."""
    target_table_name: Name
    """Table that is made for the pieces of text and their vectors."""
    embed_columns: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Columns whose values, one below the other, are the text of a row."""
    metadata_columns: tuple[Name, ...] = ()
    """Columns of the row that stand beside each piece; `_cq_id` always does."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The metadata columns, `_cq_id` among them."""
        return self.metadata_columns if CQ_ID in self.metadata_columns else (CQ_ID, *self.metadata_columns)


class RecursiveText(Spec):
    """How texts are cut: at paragraphs where that is fine enough, then at lines, words and characters."""

    chunk_size: Annotated[int, Field(ge=1)] = 1_000
    """Characters of a piece, at most."""
    chunk_overlap: Annotated[int, Field(ge=0)] = 500
    """Characters that a piece repeats of the one before, at most."""


class TextSplitter(Spec):
    """How texts become pieces."""

    recursive_text: RecursiveText = RecursiveText()
    """Cuts at the largest unit that fits."""


class OpenAIEmbedding(Spec):
    """Who makes the vectors."""

    api_key: Secret
    """Key of the API."""
    model_name: Literal["text-embedding-3-small", "text-embedding-3-large"]
    """Model that makes the vectors."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Accepted as upstream has it; the model says how many numbers a vector has."""
    base_url: Name = "https://api.openai.com/v1"
    """Where the API lives; another one that speaks the same can stand here."""


class PgVectorConfig(Spec):
    """Embeddings of texts, kept with the `vector` extension (https://github.com/pgvector/pgvector)."""

    tables: Annotated[tuple[EmbeddedTable, ...], Field(min_length=1)]
    """Tables whose texts are embedded."""
    text_splitter: TextSplitter = TextSplitter()
    """How long texts are cut."""
    openai_embedding: OpenAIEmbedding
    """Who makes the vectors."""

    @field_validator("tables")
    @classmethod
    def _check_names(cls, tables: tuple[EmbeddedTable, ...]) -> tuple[EmbeddedTable, ...]:
        for kind in ("source_table_name", "target_table_name"):
            names = [getattr(table, kind) for table in tables]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"`{kind}` {twice!r} stands twice; each table can be there once")
        return tables


class Lakebase(Spec):
    """Login to Databricks Lakebase with a token that is asked for at every connection."""

    endpoint: Name
    """Resource name: `projects/{project}/branches/{branch}/endpoints/{endpoint}`."""
    host: str = ""
    """URL of the workspace; unset, the environment variable `DATABRICKS_HOST`."""
    client_id: str = ""
    """OAuth client of the service principal; unset, `DATABRICKS_CLIENT_ID`."""
    client_secret: Secret = Secret("")
    """Its secret; unset, `DATABRICKS_CLIENT_SECRET`."""


class AWSIAMAuth(Spec):
    """Login to Amazon RDS and Aurora with a token that is signed for every connection."""

    service: Literal["rds"] = "rds"
    """Service that the database belongs to."""
    region: str = ""
    """Region of the database; unset, as the AWS SDK finds it."""
    endpoint: Annotated[str, Field(pattern=r"^([^:\s]+(:[0-9]{1,5})?)?$")] = ""
    """`host` or `host:port` that the token is signed for, where the connection goes through a tunnel or a CNAME."""
    local_profile: str = ""
    """Profile of the AWS configuration files."""
    role_arn: Annotated[str, Field(pattern=r"^(arn(:[^:\n]*){5}([:/].*)?)?$")] = ""
    """Role that is assumed before signing."""
    role_session_name: str = ""
    """Name of the session in that role."""
    external_id: str = ""
    """External id for assuming that role."""


class PostgreSQLSpec(BatchSpec):
    """Spec of the postgresql destination."""

    connection_string: Secret
    """Connection string or URI, as libpq takes it."""
    create_performance_indexes: bool = False
    """Whether tables get an index on `_cq_source_name` and `_cq_sync_time`."""
    retry_on_deadlock: Annotated[int, Field(ge=0)] = 0
    """Accepted as upstream has it; deadlocks are always tried again."""
    pgx_log_level: Literal["trace", "debug", "info", "warn", "error", "none"] = "error"
    """Accepted as upstream has it; there is no such driver here."""
    pgvector_config: PgVectorConfig | None = None
    """Embeddings of texts, kept beside their tables."""
    lakebase: Lakebase | None = None
    """Login to Databricks Lakebase."""
    aws_iam_auth: AWSIAMAuth | None = None
    """Login to Amazon RDS and Aurora."""

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if self.lakebase is not None and self.aws_iam_auth is not None:
            raise ValueError("`lakebase` and `aws_iam_auth` both make the password; leave one out")
        return self
