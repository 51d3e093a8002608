"""The service plane: one file that describes a service, checked against the site's policies, rendered for Kubernetes.

    file = read(Path("service.toml"))            strict: every error with its line
    check(file, platform, date.today())          every policy that it breaks, with its line and how to mend it
    rendered(file.service, platform, file.contents)   its objects, Pod Security `restricted` by construction
    publish(deployment(file, platform, date.today()), platform.gitops)   a commit in the repository that Argo CD reads

Nothing here talks to a Kubernetes cluster. `slurm` runs services as chains of jobs; `gateway` is one address for all.
"""

from piolet.service.checking import Breach, check
from piolet.service.platform import Platform, of_site
from piolet.service.reading import ServiceFile, read
from piolet.service.render import Manifests, rendered

__all__ = ["Breach", "Manifests", "Platform", "ServiceFile", "check", "of_site", "read", "rendered"]
