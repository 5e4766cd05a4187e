import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from flexmeter.errors import ServiceError
from flexmeter.supervision import Program, Supervisor

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def run(test):
    async def main():
        async with asyncio.timeout(60):
            await test()

    asyncio.run(main())


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def test_a_killed_child_is_started_again_and_stopped_at_the_end(tmp_path):
    async def test():
        async with Supervisor() as supervisor:
            child = await supervisor.start(Program("sleeper", SLEEP, tmp_path / "log"))
            first = child.pid
            os.kill(first, signal.SIGKILL)
            await until(lambda: child.pid not in (0, first))
            second = child.pid
        assert not alive(second)
        assert child.restarts == 1

    run(test)


def test_children_are_stopped_in_reverse_order(tmp_path):
    async def test():
        order = tmp_path / "order"
        script = textwrap.dedent("""
            import signal, sys, time
            def end(*_):
                open({0!r}, "a").write({1!r})
                sys.exit()
            signal.signal(signal.SIGTERM, end)
            open({2!r}, "w")
            time.sleep(600)
        """)
        async with Supervisor() as supervisor:
            for name in "abc":
                up = tmp_path / f"up-{name}"

                async def ready(up=up):
                    return up.exists()

                code = script.format(str(order), name, str(up))
                await supervisor.start(
                    Program(name, [sys.executable, "-c", code], tmp_path / f"{name}.log", ready=ready)
                )
        assert order.read_text() == "cba"

    run(test)


def test_a_program_that_ends_at_once_is_one_clear_error_with_its_last_words(tmp_path):
    async def never():
        return False

    async def test():
        program = Program("short", [sys.executable, "-c", "print('no such port')"], tmp_path / "log", ready=never)
        async with Supervisor() as supervisor:
            with pytest.raises(ServiceError, match=r"short: ended at start with status 0; .*no such port"):
                await supervisor.start(program)

    run(test)


def test_a_program_that_is_never_ready_is_stopped(tmp_path):
    pids = []

    async def never():
        return False

    async def test():
        program = Program("slow", SLEEP, tmp_path / "log", ready=never, start_s=0.2)
        async with Supervisor() as supervisor:
            with pytest.raises(ServiceError, match="slow: not ready after"):
                await supervisor.start(program)
            pids.append(len(supervisor.children))

    run(test)
    assert pids == [0]


def test_a_missing_program_is_one_clear_error(tmp_path):
    async def test():
        async with Supervisor() as supervisor:
            with pytest.raises(ServiceError, match="cannot start"):
                await supervisor.start(Program("ghost", [str(tmp_path / "ghost")], tmp_path / "log"))

    run(test)


def test_a_child_that_ignores_the_request_to_stop_is_killed(tmp_path):
    async def test():
        up = tmp_path / "up"
        code = f"import signal,time\nsignal.signal(15,signal.SIG_IGN)\nopen({str(up)!r},'w')\ntime.sleep(600)"

        async def ready():
            return up.exists()

        async with Supervisor() as supervisor:
            program = Program("deaf", [sys.executable, "-c", code], tmp_path / "log", ready=ready, stop_s=0.1)
            child = await supervisor.start(program)
            pid = child.pid
        assert not alive(pid)

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux only")
def test_children_die_with_a_parent_that_is_killed(tmp_path):
    parent = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from flexmeter.supervision import Program, Supervisor
        async def main():
            async with Supervisor() as supervisor:
                child = await supervisor.start(Program("sleeper", {SLEEP!r}, Path({str(tmp_path / "log")!r})))
                print(child.pid, flush=True)
                await asyncio.sleep(600)
        asyncio.run(main())
    """)
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
    for _ in range(10_000):
        if not alive(pid) or _is_zombie(pid):
            break
        os.sched_yield()
    assert not alive(pid) or _is_zombie(pid)


def _is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
