"""Locking an environment: asking registries what each tag means now, for every architecture, and writing it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from piolet.core.errors import ConfigError, PioletError, UsageError
from piolet.env import image as images
from piolet.env import lookup, pins
from piolet.env.compiling import merge
from piolet.env.edf import Value
from piolet.env.expanding import expand
from piolet.env.importing import NotInStore
from piolet.env.pins import Pin
from piolet.tools.oci.manifest import WrongArchitecture


@dataclass(frozen=True, slots=True)
class Change:
    """The pin of an architecture before and after; None where there is none."""

    architecture: str
    before: Pin | None
    after: Pin | None


def lock_images(name: str, context: lookup.Context, *, update: bool) -> tuple[Change, ...]:
    """Write the lock of the environment `name`, and return what it was and is; nothing is imported.

    Raises:
        UsageError: there is a lock and `update` is false, or the environment has nothing to lock.
        ConfigError: the environment is wrong, or a registry does not tell.
    """
    edf = lookup.find(name, context)
    lock = pins.path_of(edf)
    if lock.exists() and not update:
        remedy = f"to lock what its tags mean now: piolet env lock {name} --update"
        raise UsageError("the environment is locked already", where=str(lock), remedy=remedy)
    before = pins.read(lock) if lock.exists() else {}
    after = _asked(merge(lookup.chain(edf, context)).images, context)
    if not after:
        remedy = f"remove {lock}" if lock.exists() else "it needs no lock"
        raise UsageError("no image of the environment has a tag", where=str(edf), remedy=remedy)
    pins.write(lock, after)
    return tuple(Change(each, before.get(each), after.get(each)) for each in sorted({*before, *after}))


def _asked(values: Mapping[str, Value], context: lookup.Context) -> dict[str, Pin]:
    """Return a pin for each architecture; an image that is given for all of them need not be made for all."""
    found: dict[str, Pin] = {}
    refused: dict[str, ConfigError] = {}
    for architecture, value in values.items():
        try:
            pin = _pin(value, architecture, context)
        except (WrongArchitecture, NotInStore) as error:
            refused[value.key] = value.error(error.what, error.remedy)
        except ConfigError:  # of the value itself
            raise
        except PioletError as error:
            raise value.error(error.what, error.remedy) from error
        else:
            found |= {architecture: pin} if pin else {}
    for key, refusal in refused.items():
        if not any(values[architecture].key == key for architecture in found):
            raise refusal
    return found


def _pin(value: Value, architecture: str, context: lookup.Context) -> Pin | None:
    name = images.tagged(value, expand(value, context.environ))
    if name is None:
        return None
    with images.importer(architecture, context) as importer:
        return Pin(str(name), importer.digest(name))
