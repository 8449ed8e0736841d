"""The public generator: `async for row in distill.generate(recipe)`, and its twin for notebooks."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from distill.dataset import Row
from distill.engine.events import Summary
from distill.engine.prepare import prepare
from distill.engine.run import Run
from distill.engine.rundir import RunDir, find_run
from distill.engine.shards import name_of, origin_of
from distill.errors import DistillError, Halted, InputError
from distill.planning import Shard
from distill.recipe import HookConfig, Recipe, load_recipe, parse

__all__ = ["AnyRecipe", "generate", "generate_sync", "open_run"]

AnyRecipe = Recipe | Mapping[str, Any] | Path | str
"""A recipe, what a recipe file would hold, or the path of such a file."""

_AHEAD = 4  # batches of rows made before the reader takes them


def open_run(
    recipe: AnyRecipe,
    *,
    run: Path | str | None = None,
    workspace: Path | str | None = None,
    new: bool = False,
    detach: bool = False,
    hook: HookConfig | None = None,
    shard: Shard | None = None,
) -> Run:
    """The run that a recipe belongs to, ready to execute.

    Args:
        recipe: a recipe, a mapping laid out as its file is (paths start from the current folder), or the file.
        run: the run directory; left out, the newest run of this recipe with the same inputs, else the next number.
        workspace: where runs and answers stand; left out, the workspace around the recipe.
        new: begin another run even if one with the same inputs exists.
        detach: end as soon as everything waits for batches at the providers.
        hook: told of the end instead of the recipe's own.
        shard: only that part of the plan, in a run directory of its own.

    Raises:
        InputError: the recipe or a file it names is wrong.
    """
    file = Path(recipe).name if isinstance(recipe, (str, Path)) else ""
    if isinstance(recipe, Mapping):
        recipe = parse(Recipe, recipe)
    elif not isinstance(recipe, Recipe):
        recipe = load_recipe(Path(recipe))
    if hook is not None:
        recipe = recipe.model_copy(update={"hook": hook})
    prepared = prepare(recipe, workspace=Path(workspace) if workspace is not None else None)
    if run is not None:
        directory = RunDir(Path(run).absolute())
    else:
        directory = find_run(prepared.workspace, name_of(recipe.name, shard), prepared.inputs, new=new)
    origin = origin_of(recipe, shard, directory.path, file)
    return Run(prepared, directory, detach=detach, shard=shard, origin=origin)


async def generate(
    recipe: AnyRecipe,
    *,
    run: Path | str | None = None,
    workspace: Path | str | None = None,
    new: bool = False,
) -> AsyncGenerator[Row]:
    """Yield accepted rows as they are decided, in the order of the plan.

    Everything `distill generate` writes is written too. Leaving the loop early stops the run the way the first
    Ctrl-C does: nothing more is asked, the calls under way are stored, and the files hold what was decided. Generating
    again continues it, from the first row on; what was paid is not paid again. Where the program ends with the loop,
    `contextlib.aclosing` gives the run the time for that.

    Raises:
        InputError: the recipe or a file it names is wrong.
        Halted: the run stopped before its target (a cap, leaves that stopped yielding); rows so far are on disk.
        RunError: the run cannot go on.
    """
    session = open_run(recipe, run=run, workspace=workspace, new=new)
    batches: asyncio.Queue[list[Row] | None] = asyncio.Queue(_AHEAD)
    left = False

    async def emit(rows: list[Row] | None) -> None:
        if not left:
            await batches.put(rows)

    async def work() -> Summary:
        try:
            return await _execute(session, emit)
        finally:
            await emit(None)

    task = asyncio.create_task(work())
    try:
        while (batch := await batches.get()) is not None:
            for row in batch:
                yield row
        _raise_unless_complete(await task)
    finally:
        if not task.done():
            left = True
            session.drain("the reader left")
            while not batches.empty():  # the run may be waiting for room in the queue
                batches.get_nowait()
            with contextlib.suppress(DistillError):
                await task


def generate_sync(
    recipe: AnyRecipe,
    *,
    run: Path | str | None = None,
    workspace: Path | str | None = None,
    new: bool = False,
) -> Generator[Row]:
    """`generate` for code without an event loop, and for notebooks, whose loop is taken: runs in a thread."""
    rows: queue.Queue[Row | BaseException | None] = queue.Queue(1024)
    left = threading.Event()
    leave: list[Callable[[], object]] = []

    async def pour() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is not None:
            leave.append(lambda: loop.call_soon_threadsafe(task.cancel))
        if left.is_set():
            return
        async with contextlib.aclosing(generate(recipe, run=run, workspace=workspace, new=new)) as stream:
            async for row in stream:
                while True:
                    try:
                        rows.put_nowait(row)
                        break
                    except queue.Full:
                        await asyncio.sleep(0.01)

    def work() -> None:
        end: BaseException | None = None
        try:
            asyncio.run(pour())
        except asyncio.CancelledError:
            pass  # the reader left
        except BaseException as error:  # handed to the reader, whatever it is
            end = error
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                rows.put(end, timeout=0.1)
                break

    thread = threading.Thread(target=work, name="distill-generate", daemon=True)
    thread.start()
    try:
        while (item := rows.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        for call in leave:
            with contextlib.suppress(RuntimeError):  # its loop is closed: it is done
                call()
        thread.join()


async def _execute(session: Run, emit: Callable[[list[Row]], Awaitable[None]]) -> Summary:
    """The session, and the hook at its end; a hook that fails is noted in the log."""
    try:
        summary = await session.execute(emit)
    except InputError:
        raise  # nothing began
    except Exception as error:
        await session.notify(error)
        raise
    await session.notify()
    return summary


def _raise_unless_complete(summary: Summary) -> None:
    if summary.state != "complete":
        raise Halted(
            f"{summary.counts['kept']} rows kept, then: {summary.reason}",
            hint="generate again to continue; rows so far are in " + str(summary.run),
        )
