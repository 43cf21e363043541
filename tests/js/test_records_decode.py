"""The page's record reader against NumPy: the same bytes must say the same to both."""

from __future__ import annotations

import base64
import json
import subprocess

import numpy as np

from engine.trace.record import RECORD, schema
from tests.support.checks import ROOT
from tests.support.provide import require

_READ = """
import { RecordReader } from './static/js/records.js';
let text = '';
for await (const chunk of process.stdin) text += chunk;
const { schema, bytes } = JSON.parse(text);
const buffer = Uint8Array.from(Buffer.from(bytes, 'base64')).buffer;
const text_of = (_, value) => typeof value === 'bigint' ? String(value) : value;
console.log(JSON.stringify(new RecordReader(schema).read(buffer), text_of));
"""


def test_every_field_of_every_record_is_read_as_numpy_reads_it() -> None:
    random = np.random.default_rng(7)
    records = np.frombuffer(random.bytes(RECORD.itemsize * 64), RECORD).copy()
    for counter in ("sequence", "time", "position"):
        records[counter] >>= 11
    done = subprocess.run(
        [require("node"), "--input-type=module", "-e", _READ],
        input=json.dumps({"schema": schema(), "bytes": base64.b64encode(records.tobytes()).decode()}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    read = json.loads(done.stdout)
    assert len(read) == len(records)
    for row, record in zip(read, records, strict=True):
        assert {name: int(value) for name, value in row.items()} == {
            name: int(record[name]) for name in RECORD.names or ()
        }
