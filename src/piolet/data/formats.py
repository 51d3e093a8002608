"""File name endings that matter for how data reads, and why."""

from __future__ import annotations

NEEDS_WHOLE_READ = {
    "zip": "a zip archive is read through its directory at the end; many readers seek in one file",
    "gz": "gzip cannot be read from the middle, so one worker must decompress all of it",
    "npz": "an npz file is a zip archive: it cannot be mapped, each array is read whole",
    "csv": "text is parsed anew in every epoch",
    "jsonl": "text is parsed anew in every epoch",
    "pkl": "a pickle is read whole, and runs code when it is read",
    "h5": "HDF5 takes a lock for each open, and many small chunks become small random reads",
    "hdf5": "HDF5 takes a lock for each open, and many small chunks become small random reads",
}
"""Endings of formats that read badly in training, each with the reason."""

REPLACEMENT = {
    "zip": "repack as WebDataset shards, or as squashfs and mount it",
    "gz": "use zstd with frames, WebDataset shards or Parquet",
    "npz": "use .npy files in one squashfs image (they can be mapped), or Parquet",
    "csv": "convert to Parquet",
    "jsonl": "convert to Parquet, or tokenise once into a memory-mapped file",
    "pkl": "use safetensors for tensors, Parquet for tables",
    "h5": "make chunks of some MiB, open with swmr or locking=False, or convert to WebDataset shards",
    "hdf5": "make chunks of some MiB, open with swmr or locking=False, or convert to WebDataset shards",
}
_OTHERS = (
    "bin",
    "flac",
    "jpeg",
    "jpg",
    "json",
    "npy",
    "parquet",
    "png",
    "pt",
    "safetensors",
    "sqsh",
    "tar",
    "txt",
    "wav",
)
KNOWN = {ending: ending for ending in (*NEEDS_WHOLE_READ, *_OTHERS)}
"""Endings that are counted by name; all others are counted together."""
