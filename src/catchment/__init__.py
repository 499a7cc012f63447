"""catchment: copy what people have in their clouds, SaaS tools, databases and files into their own database.

What a script or notebook uses is here: `sync`, `migrate`, `read`. The names are loaded when they are first used, as the
command line and every plugin import this module too.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from catchment.api import (
        CatchmentError,
        ConfigLike,
        PluginError,
        Result,
        SpecError,
        StoredTable,
        SyncFailed,
        migrate,
        read,
        sync,
    )

__all__ = [
    "CatchmentError",
    "ConfigLike",
    "PluginError",
    "Result",
    "SpecError",
    "StoredTable",
    "SyncFailed",
    "migrate",
    "read",
    "sync",
]

# Type checkers see the imports above, and so a misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'catchment' has no attribute {name!r}")
        from catchment import api

        return getattr(api, name)
