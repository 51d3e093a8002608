import hashlib

import pytest

from piolet.core.errors import ParseError, Refused
from piolet.env.trusting import trust


def test_what_is_not_trusted(tmp_path):
    image = tmp_path / "image.sqsh"
    image.write_bytes(b"no image")
    with pytest.raises(ParseError):
        trust(image, "0" * 64)
    image.write_bytes(b"hsqs" + bytes(24) + b"\x04\0\0\0" + bytes(200))
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    with pytest.raises(Refused, match=digest):
        trust(image, "0" * 64)
    image.chmod(0o666)
    with pytest.raises(Refused, match="others than root may change it"):
        trust(image, digest)
    assert list(tmp_path.iterdir()) == [image]
