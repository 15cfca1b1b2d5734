"""A thread for a job that blocks, waited for on the API's loop. It never keeps the process from ending."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def in_thread(job: Callable[[], T]) -> "asyncio.Future[T]":
    """Run *job* on a thread of its own; what it returns or raises comes by the future.

    Raises:
        RuntimeError: There is no thread to be had; the job does not run.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only where T is

    def work() -> None:
        result, failed = None, None
        try:
            result = job()
        except BaseException as error:  # raised where it is waited for
            failed = error
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=work, name="api-job", daemon=True).start()
    return done
