"""Reads what an offline run on Weights & Biases holds, with nothing but wandb's own message types.

The file is a log in LevelDB's format (doc/log_format.md of google/leveldb) after a header of 7
bytes; each record is a `Record` message. `wandb sync` sends these records.
"""

import json
import struct
import time
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

Record: Any = wandb_internal_pb2.Record  # type: ignore[attr-defined]
HEADER, BLOCK = 7, 32768


class OfflineRun:
    """All records of one .wandb file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = wait_for_end(path)
        self.run = next(r.run for r in self.records if r.HasField("run"))

    @property
    def history(self) -> dict[int, dict[str, Any]]:
        """Step -> what was logged at it."""
        rows = {}
        for record in self.records:
            if record.HasField("history"):
                items = record.history.item
                row = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
                rows[int(record.history.step.num)] = row
        return rows

    @property
    def artifacts(self) -> list[Any]:
        """Logged artifacts, each with its manifest."""
        requests = [r for r in self.records if r.HasField("artifact")]
        return [record.artifact for record in requests]

    @property
    def summary(self) -> dict[str, Any]:
        """The figures that stand for the whole run."""
        found = {}
        for record in self.records:
            if record.HasField("summary"):
                for item in record.summary.update:
                    key = item.key or "/".join(item.nested_key)
                    found[key] = json.loads(item.value_json)
        return found


def wait_for_end(path: Path, seconds: float = 60) -> list[Any]:
    """The records up to the end of the run, which wandb's own process writes a little later."""
    end = time.monotonic() + seconds
    while True:
        records = [Record.FromString(data) for data in read_log(path.read_bytes())]
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < end, f"{path} has no end"
        time.sleep(0.1)


def read_log(data: bytes) -> list[bytes]:
    """The records of a log whose header was checked."""
    assert data[:4] == b":W&B"
    records, parts, place = [], [], HEADER
    while place + 7 <= len(data):
        room = BLOCK - place % BLOCK
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        if kind == 0:
            place += room
            continue
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):
            records.append(b"".join(parts))
            parts = []
    return records
