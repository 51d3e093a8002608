"""From a service to the objects that run it: pure functions of the service and the platform, in a stable order."""

from piolet.service.render.objects import Manifests, rendered

__all__ = ["Manifests", "rendered"]
