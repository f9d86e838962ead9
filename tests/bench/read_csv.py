"""Speed of reading a clean CSV: rows a second and CPU time, the best of five.

    python tests/bench/read_csv.py FILE.csv ...

Any CSV with columns query and title, for example from `pyarrow.csv.write_csv`.
"""

from __future__ import annotations

import argparse
import json
import time

from raydistill.files.inputs.input_files import expand_inputs
from raydistill.files.inputs.readers import read_raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    files = expand_inputs(parser.parse_args().files)
    walls, cpus, num_rows = [], [], 0
    for _ in range(6):  # the first round compiles
        wall, cpu = time.monotonic(), time.process_time()
        num_rows = sum(
            len(raw.rows) for file in files for raw in read_raw(file, columns=["query", "title"])
        )
        walls.append(time.monotonic() - wall)
        cpus.append(time.process_time() - cpu)
    figures = {"rows": num_rows, "rows_per_s": num_rows / min(walls[1:]), "cpu_s": min(cpus[1:])}
    print(json.dumps({"bench": "read_csv", "figures": figures}))


if __name__ == "__main__":
    main()
