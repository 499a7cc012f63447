"""The names that staged tables and the engine's columns have; for destinations that stage and publish."""

from catchment.schema.internal import (
    CQ_CLIENT_ID,
    CQ_ID,
    CQ_PARENT_ID,
    CQ_SOURCE_NAME,
    CQ_SYNC_TIME,
    STAGING_PREFIX,
    is_staging,
    staging_name,
    staging_run,
)

__all__ = [
    "CQ_CLIENT_ID",
    "CQ_ID",
    "CQ_PARENT_ID",
    "CQ_SOURCE_NAME",
    "CQ_SYNC_TIME",
    "STAGING_PREFIX",
    "is_staging",
    "staging_name",
    "staging_run",
]
