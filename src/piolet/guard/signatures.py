"""Who made a model: signatures of the OpenSSF Model Signing specification, verified by the package model-signing.

A signature is over the digests of all files, so one that is changed, missing or new is found too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piolet.core.errors import UsageError, storage_errors
from piolet.guard import rules
from piolet.guard.finding import Place, Risk, Scan, risk

if TYPE_CHECKING:
    from model_signing import verifying

_MOST_CHARS = 200


@dataclass(frozen=True, slots=True)
class Signer:
    """Who should have signed: a public key, or an identity that `issuer` (an OpenID provider) vouches for in Sigstore.

    `trust` is a file with the site's own Sigstore; None is the public one, which is asked over the network.
    """

    public_key: Path | None = None
    identity: str = ""
    issuer: str = ""
    trust: Path | None = None


def verified(model: Path, signature: Path, signer: Signer) -> Scan:
    """Verify the signature of a model.

    Raises:
        UsageError: it is not said who should have signed.
        StorageError: a file cannot be read.
    """
    for path in filter(None, (model, signature, signer.public_key, signer.trust)):
        with storage_errors(path, "read"):
            path.stat()
    return Scan("model", 0, 0, tuple(_risks(model, signature, signer)))


def _risks(model: Path, signature: Path, signer: Signer) -> Iterator[Risk]:
    from model_signing import hashing, verifying  # noqa: PLC0415 - a second to import, and needed here alone
    from sigstore.errors import Error, VerificationError  # noqa: PLC0415 - same

    files = hashing.Config()  # type: ignore[no-untyped-call] # as the package has it
    config = verifying.Config()  # type: ignore[no-untyped-call] # same
    config.set_hashing_config(files.set_ignored_paths(paths=[signature]))
    _expect(config, signer)
    try:
        config.verify(model, signature)
    except (
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        VerificationError,
    ) as error:  # of signatures of any form
        reason = f"{type(error).__name__}: {error}".partition(": Expected")[0]
        yield risk(rules.SIGNATURE, Place(str(model)), reason[:_MOST_CHARS])
    except (OSError, Error) as error:
        reason = f"{type(error).__name__}: {error}"
        yield risk(rules.SIGNATURE_UNKNOWN, Place(str(signature)), reason[:_MOST_CHARS])


def _expect(config: verifying.Config, signer: Signer) -> None:
    """Say to `config` who should have signed.

    Raises:
        UsageError: it is not said, or the key cannot be read.
    """
    if signer.public_key and not signer.identity:
        try:
            config.use_elliptic_key_verifier(public_key=signer.public_key)
        except ValueError as error:
            raise UsageError(
                "not a public key", where=str(signer.public_key), remedy="give a file in PEM, of an elliptic curve"
            ) from error
    elif signer.identity and signer.issuer and not signer.public_key:
        config.use_sigstore_verifier(identity=signer.identity, oidc_issuer=signer.issuer, trust_config=signer.trust)
    else:
        raise UsageError(
            "it is not said who should have signed, or twice",
            where="--signature",
            remedy="give --public-key FILE, or --identity NAME and --issuer URL",
        )
