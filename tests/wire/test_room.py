"""More clients than there is room for."""

import asyncio

from bursar.wire.server import LineServer


def who_stays(tmp_path, waiting: list[bool]) -> list[bool]:
    """Which of several clients are still connected when one more came than there is room for; *waiting*: which of them wait for an answer."""

    async def story() -> list[bool]:
        def on_lines(connection, lines):
            connection.tickets = {1: 1} if lines == [b"wait"] else {}
            connection.send(b"heard\n")

        server = LineServer(tmp_path / "s", on_lines=on_lines, on_closed=lambda _: None, rejection=lambda message: message.encode() + b"\n")
        server.most = len(waiting)
        await server.open(None)
        clients = []
        for waits in [*waiting, False]:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(b"wait\n" if waits else b"ask\n")
            clients.append((await reader.readline() == b"heard\n", reader, writer))
        said = [asyncio.create_task(reader.readline()) for _, reader, _ in clients]
        await asyncio.wait(said, timeout=0.05)
        stay = [heard and not one.done() for (heard, _, _), one in zip(clients, said, strict=True)]
        for (_, _, writer), one in zip(clients, said, strict=True):
            one.cancel()
            writer.close()
        server.stop_listening()
        await server.hang_up()
        return stay

    return asyncio.run(story())


def test_who_opens_thousands_locks_nobody_out(tmp_path):
    """The oldest connection that waits for nothing makes room."""
    assert who_stays(tmp_path, [True, False, False]) == [True, False, True, True]


def test_nobody_who_waits_is_hung_up_on(tmp_path):
    """When all of them wait, the one that comes is told so."""
    assert who_stays(tmp_path, [True, True, True]) == [True, True, True, False]
