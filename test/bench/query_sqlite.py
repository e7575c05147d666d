"""Twins in SQLite, by the library that Python comes with: load FILE reads
"id<tab>document" lines from standard input, ask FILE reads a JSON object a line,
{"sql": ..., "runs": n}, and answers {"rows": [...], "ms": [...]}.
"""
import json
import sqlite3
import sys
import time

what, file, schema = sys.argv[1], sys.argv[2], sys.argv[3]
db = sqlite3.connect(file, isolation_level=None)
db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-2000000; PRAGMA mmap_size=8000000000; PRAGMA temp_store=MEMORY;")
if what == "load":
    db.execute("CREATE TABLE twin (id TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID")
    db.execute("BEGIN")
    db.executemany("INSERT INTO twin VALUES (?, ?)", (line.rstrip("\n").split("\t", 1) for line in sys.stdin))
    db.execute("COMMIT")
    with open(schema) as f:
        db.executescript(f.read())
    print(sqlite3.sqlite_version)
else:
    for line in sys.stdin:
        request = json.loads(line)
        took = []
        for _ in range(request["runs"]):
            began = time.perf_counter()
            rows = db.execute(request["sql"]).fetchall()
            took.append((time.perf_counter() - began) * 1000)
        print(json.dumps({"rows": rows, "ms": took}), flush=True)
