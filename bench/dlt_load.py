"""Loads the view with dlt, as its guide for databases has it; run by the interpreter of an environment that has dlt.

FROM and TO are libpq URLs, VIEW is what is read, FOLDER is where dlt keeps its files. Its fastest ways are chosen:
rows as Arrow tables, files as CSV that the target takes by COPY.
"""

from __future__ import annotations

import os

import dlt  # type: ignore[import-not-found]
from dlt.sources.sql_database import sql_table  # type: ignore[import-not-found]


def main() -> None:
    """Append every row to the table `bench.reference`."""
    schema, _, view = os.environ["VIEW"].partition(".")
    source = os.environ["FROM"].replace("postgresql:", "postgresql+psycopg2:")
    rows = sql_table(credentials=source, schema=schema, table=view, backend="pyarrow", chunk_size=100_000)
    rows.apply_hints(table_name="reference", primary_key="id", write_disposition="append")
    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.postgres(os.environ["TO"]),
        dataset_name="bench",
        pipelines_dir=os.environ["FOLDER"],
    )
    pipeline.run(rows, loader_file_format="csv")


if __name__ == "__main__":
    main()
