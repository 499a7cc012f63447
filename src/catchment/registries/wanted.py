"""Which plugin is to be had, and for which machine."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass, field

from catchment.errors import SpecError

# They become names of folders and parts of addresses.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"v[A-Za-z0-9._+-]*")
# Upstream names machines as Go does: https://go.dev/doc/install/source#environment
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}


def this_machine() -> str:
    """Operating system and architecture, such as `linux_amd64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}_{_ARCHITECTURES.get(machine, machine)}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A plugin of a registry in one version."""

    registry: str
    kind: str
    team: str
    name: str
    version: str
    target: str = field(default_factory=this_machine)
    """The machine that it is to run on."""

    def __str__(self) -> str:
        return f"{self.kind} plugin `{self.team}/{self.name}` {self.version}"


def wanted(registry: str, kind: str, path: str, version: str) -> Wanted:
    """What a config asks for. Raises `SpecError` for a path or a version that no plugin can have."""
    team, slash, name = path.partition("/")
    if not slash or not _NAME.fullmatch(team) or not _NAME.fullmatch(name):
        expected = "team/name" if registry == "cloudquery" else "org/name"
        hint = f"a path of `registry: {registry}` is as `cloudquery/aws`"
        raise SpecError(f"{kind} plugin: expected {expected}, got {path!r}", hint=hint)
    if not _VERSION.fullmatch(version):
        raise SpecError(f"{kind} plugin `{path}`: version {version!r} cannot be", hint="write it as `v1.2.3`")
    return Wanted(registry, kind, team, name, version)
