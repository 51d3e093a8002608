"""What environment.lock.json holds: every value of the environment with its origin, and the image's digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from piolet.env import image as images
from piolet.env.plan import ContainerPlan

SCHEMA = 1


def lock(plan: ContainerPlan, *, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the record of an environment, ready for JSON.

    The digest of an image is computed when it is first seen (about a second a gigabyte) and kept in the user's
    cache.

    Raises:
        StorageError: the image cannot be read.
    """
    return {
        "schema": SCHEMA,
        "name": plan.name,
        "plan_sha256": plan.digest,
        "image": {
            "kind": plan.image.kind.value,
            "path": str(plan.image.path),
            "size_bytes": plan.image.size_bytes,
            "mtime_ns": plan.image.mtime_ns,
            "sha256": images.sha256(plan.image, environ) or None,
            "name": plan.image.stored.name if plan.image.stored else None,
            "digest": plan.image.stored.digest if plan.image.stored else None,
        },
        "values": [{"key": key, "value": value, "origin": origin} for key, value, origin in plan.rows()],
    }
