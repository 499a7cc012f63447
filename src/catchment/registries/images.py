"""Plugins of the registry `cloudquery` that are published as Docker images."""

from __future__ import annotations

import base64
import json
import os

from catchment.registries.wanted import Wanted

HOST = "docker.cloudquery.io"
KEY = "CLOUDQUERY_API_KEY"


def image_of(wanted: Wanted) -> str:
    """Name of the image that a plugin is published as."""
    return f"{HOST}/{wanted.team}/{wanted.kind}-{wanted.name}:{wanted.version}"


def login_for(image: str) -> str:
    """The login for an image of the hub, as a Docker engine wants it; empty for other images, and without a key.

    https://docs.docker.com/reference/api/engine/ (X-Registry-Auth)
    """
    key = os.environ.get(KEY, "")
    if not key or not image.startswith(f"{HOST}/"):
        return ""
    login = {"username": "managedplugin", "password": key, "serveraddress": HOST}
    return base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
