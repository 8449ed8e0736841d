"""distill: a recipe and `distill generate`, as the README has it. A continued run goes on from the answer store."""

import sys
from pathlib import Path

from onecall import job, measured, write


def main() -> None:
    # Imported before the clock starts, as the others are.
    import pyarrow.parquet as pq

    import distill.engine
    import distill.studio.report
    import distill.teachers.openai  # noqa: F401
    from distill.cli.generate import generate_run
    from tests.support.workspaces import probe

    work = job()
    folder = Path(work.folder)
    recipe = probe(
        folder,
        work.base_url,
        target=work.rows,
        teacher={
            "max_concurrency": work.concurrency,
            "timeout_s": 20,
            **({"limits": {"requests_per_minute": work.rpm}} if work.rpm is not None else {}),
        },
        budget={"usd": 50},
    )
    run = folder / "out"
    with measured() as told:
        summary = generate_run(recipe, run=run, new=False, quiet=True)
        told["rows"] = summary.counts["kept"]
    table = pq.ParquetFile(run / "rows.parquet").read(columns=["messages"])
    rows = [{"prompt": turns[0]["content"], "text": turns[1]["content"]} for turns in table["messages"].to_pylist()]
    write(rows, work.folder)
    sys.exit(summary.exit_code)


main()
