"""A corpus of model files: malicious ones whose payloads only touch a file, and benign ones; written by hand here.

`write(directory)` writes all of them. Benign files of real libraries (torch, numpy) come from real_models.py.
"""

from __future__ import annotations

import bz2
import collections
import datetime as dt
import decimal
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

TOUCH = "touch /tmp/piolet-corpus-ran"
"""What a payload would do, were it run."""


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def named(module, name, *arguments, protocol=4):
    """Return a pickle that calls module.name, which need not exist here."""
    head = b"" if protocol == 0 else b"\x80" + bytes([protocol])
    found = f"c{module}\n{name}\n".encode() if protocol < 4 else text(module) + text(name) + b"\x93"
    return head + found + b"(" + b"".join(map(text, arguments)) + b"tR."


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def zipped(members, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members, link=None):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo("weights")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry)
    return buffer.getvalue()


def safetensors(header, data=b"\0" * 16):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


def tensor(begin=0, end=16, dtype="F32", shape=(4,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def gguf(pairs=(), tensors=(), version=3, data=b"\0" * 64, counts=None):
    def string(value):
        return struct.pack("<Q", len(value)) + value.encode()

    head = struct.pack("<4sIQQ", b"GGUF", version, *(counts or (len(tensors), len(pairs))))
    head += b"".join(string(key) + struct.pack("<I", 8) + string(value) for key, value in pairs)
    for name, shape, offset in tensors:
        head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
    return head + b"\0" * (-len(head) % 32) + data


def field(number, content):
    size, out = len(content), b""
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + out + bytes([size]) + content


def onnx(location):
    external = field(13, field(1, b"location") + field(2, location.encode()))
    return b"\x08\x08" + field(7, field(1, field(4, b"Relu")) + field(5, field(8, b"w") + external))


def npy(payload, descr="|O"):
    header = repr({"descr": descr, "fortran_order": False, "shape": (1,)}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload


def malicious():
    system = named("posix", "system", TOUCH)
    good = pickle.dumps(collections.OrderedDict(w=1))
    files = {f"proto{n}.pkl": named("os", "system", TOUCH, protocol=n) for n in (0, 2, 3, 4)}
    calls = {
        "eval": ("builtins", "eval"),
        "exec": ("builtins", "exec"),
        "getattr": ("builtins", "getattr"),
        "subprocess": ("subprocess", "check_output"),
        "runpy": ("runpy", "_run_code"),
        "pty": ("pty", "spawn"),
        "timeit": ("timeit", "timeit"),
        "bdb": ("bdb", "Bdb.run"),
        "asyncio": ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
        "torch_hub": ("torch.hub", "load"),
        "load_from_bytes": ("torch.storage", "_load_from_bytes"),
        "numpy_runstring": ("numpy.testing._private.utils", "runstring"),
        "dotted": ("collections", "abc.sys.modules"),
        "nn_dotted": ("torch.nn.modules.module", "os.system"),
        "nn_function": ("torch.nn.modules.container", "operator"),
        "webbrowser": ("webbrowser", "open"),
        "socket": ("socket", "create_connection"),
        "unknown": ("some_package.tools", "Runner"),
        "pip": ("pip", "main"),
        "pydoc": ("pydoc", "pipepager"),
        "dynamo": ("torch._dynamo.guards", "GuardBuilder.get"),
    }
    files |= {f"call_{name}.pkl": named(*call, TOUCH) for name, call in calls.items()}
    memo = (
        b"\x80\x04"
        + text("os")
        + b"\x94"
        + b"0"
        + text("system")
        + b"\x94"
        + b"0h\x00h\x01\x93("
        + text(TOUCH)
        + b"tR."
    )
    bomb = zipped({"archive/data.pkl": good, "archive/data/0": b"\0" * 8_000_000}, zipfile.ZIP_DEFLATED)
    local = zipped({"archive/data.pkl": system}).replace(b"archive/data.pkl", b"archive/data.txt", 1)
    torn = zipped({"archive/data.pkl": system})
    crypt = bytearray(zipped({"archive/data.pkl": system}))
    crypt[crypt.rindex(b"PK\x01\x02") + 8] |= 1
    return files | {
        "memo.pkl": memo,
        "inst.pkl": b"(X" + struct.pack("<I", len(TOUCH)) + TOUCH.encode() + b"ios\nsystem\n.",
        "broken_after_call.pkl": system[:-1] + b"\xff\xff",
        "second_pickle.pkl": good + system,
        "extension.pkl": b"\x80\x02\x82\x01.",
        "no_suffix_pickle.dat": system,
        "real_reduce.pkl": pickle.dumps(Calls(exec, "open('/tmp/piolet-corpus-ran','w')")),
        "torch.pt": zipped({"archive/data.pkl": system, "archive/version": b"3\n"}),
        "torch_renamed.pt": zipped({"archive/data.bin": good, "archive/hidden.txt": system}),
        "torch_local_name.pt": local,
        "torch_encrypted.pt": bytes(crypt),
        "torch_torn.pt": torn[: len(torn) // 2],
        "seven_zip.pt": b"7z\xbc\xaf\x27\x1c" + b"\0" * 64,
        "bomb.pt": bomb,
        "zip_slip.pt": zipped({"../../evil.pkl": good}),
        "nested.zip": zipped({"a.zip": zipped({"b.zip": zipped({"data.pkl": system})})}),
        "gzip.pkl.gz": gzip.compress(system),
        "bz2.pkl.bz2": bz2.compress(system),
        "xz.pkl.xz": lzma.compress(system),
        "zlib.joblib": zlib.compress(system),
        "tar.tar": tarred({"model/weights.pkl": system}),
        "tar_link.tar": tarred({"a.txt": b"a"}, link="/etc/passwd"),
        "objects.npy": npy(system),
        "objects.npz": zipped({"a.npy": npy(system)}),
        "long_header.safetensors": struct.pack("<Q", 1 << 62) + b"{}",
        "overlap.safetensors": safetensors({"a": tensor(), "b": tensor(8, 24)}, b"\0" * 24),
        "past_end.safetensors": safetensors({"a": tensor(0, 64, shape=(16,))}),
        "twice.safetensors": safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":1}'),
        "shape.safetensors": safetensors({"a": tensor(shape=(5,))}),
        "trailing.safetensors": safetensors({"a": tensor()}, b"\0" * 16 + b"PK\x03\x04"),
        "counts.gguf": gguf(counts=(1 << 60, 1 << 60)),
        "past_end.gguf": gguf(tensors=[("w", (1 << 30,), 0)]),
        "template.gguf": gguf([("tokenizer.chat_template", "{{ ().__class__.__mro__[1].__subclasses__() }}")]),
        "traversal.onnx": onnx("../../etc/passwd"),
        "absolute.onnx": onnx("/etc/passwd"),
        "lambda.keras": zipped({"config.json": json.dumps({"layers": [{"class_name": "Lambda"}]})}),
        "lambda.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 99 + b'{"class_name": "Lambda", "config": {}}',
        "saved_model.pb": b"\x0a\x10\x12\x08ReadFile\x12\x09WriteFile",
        "tokenizer_config.json": json.dumps(
            {"chat_template": "{{ cycler.__init__.__globals__.os.popen('id') }}"}
        ).encode(),
        "config.json": json.dumps({"auto_map": {"AutoModel": "someone/else--modeling.Model"}}).encode(),
    }


def benign():
    good = pickle.dumps(collections.OrderedDict(w=[1.0, 2.0], s={1, 2}))
    values = {
        "numbers": [1, 2.5, None, True, 1 << 200],
        "texts": ["os", "system", "posix", "eval"],
        "set": {1, 2},
        "frozen": frozenset({3}),
        "counter": collections.Counter("abca"),
        "deque": collections.deque([1]),
        "default": collections.defaultdict(list, a=[1]),
        "dates": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.timedelta(3)],
        "decimal": decimal.Decimal("1.5"),
        "path": Path("weights"),
        "complex": 3j,
        "bytes": [b"c\x00os\nsystem\n", bytearray(b"x")],
        "range": [range(3), slice(1)],
    }
    files = {f"{name}.pkl": pickle.dumps(value) for name, value in values.items()}
    files |= {f"proto{n}.pkl": pickle.dumps(values["set"], protocol=n) for n in range(6)}
    members = {"archive/data.pkl": good, "archive/data/0": b"\0" * 64, "archive/version": b"3\n"}
    return files | {
        "two.pkl": good + good,
        "raw_after.bin": b"\x80\x02}q\x00." + bytes(range(7)) * 99,
        "weights.pt": zipped(members),
        "squeezed.npz": zipped({"a.npy": npy(b"\0" * 8, "<f8")}, zipfile.ZIP_DEFLATED),
        "floats.npy": npy(b"\0" * 8, "<f8"),
        "fields.npy": npy(b"\0" * 12, [("x", "<f8"), ("y", "<i4")]),
        "objects.npy": npy(good),
        "gzip.pkl.gz": gzip.compress(good),
        "xz.pkl.xz": lzma.compress(good),
        "zlib.joblib": zlib.compress(good),
        "model.tar": tarred({"model/config.json": b"{}", "model/weights.pkl": good}),
        "model.safetensors": safetensors({"a": tensor(), "__metadata__": {"format": "pt"}}),
        "empty.safetensors": safetensors({}, b""),
        "scalar.safetensors": safetensors({"a": tensor(0, 4, shape=()), "b": tensor(4, 4, shape=(0, 3))}, b"\0" * 4),
        "model.gguf": gguf([("general.name", "tiny")], [("w", (4, 4), 0)]),
        "chat.gguf": gguf([("tokenizer.chat_template", "{% for m in messages %}{{ m['content'] }}{% endfor %}")]),
        "model.onnx": onnx("weights.bin"),
        "inline.onnx": b"\x08\x08"
        + field(7, field(1, field(4, b"Relu")) + field(5, field(8, b"w") + field(9, b"\0" * 300))),
        "dense.keras": zipped(
            {"config.json": json.dumps({"layers": [{"class_name": "Dense"}]}), "metadata.json": "{}"}
        ),
        "dense.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 99 + b'{"class_name": "Dense", "config": {}}',
        "saved_model.pb": b"\x0a\x10\x12\x06MatMul\x12\x04Relu",
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 64}).encode(),
        "tokenizer_config.json": json.dumps({"chat_template": "{{ bos_token }}{{ message.content }}"}).encode(),
        "README.md": b"# A model\nos.system is only mentioned here.\n",
    }


def write(directory):
    """Write the corpus below `directory`, and return the paths of the malicious and of the benign files."""
    found = []
    for kind, files in (("malicious", malicious()), ("benign", benign())):
        place = Path(directory, kind)
        place.mkdir(parents=True)
        for name, content in files.items():
            (place / name).write_bytes(content)
        found.append(sorted(place.iterdir()))
    return found
