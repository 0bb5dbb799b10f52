"""A thousand incidents in a minute: no channel is flooded, and every incident is in a message or a summary."""

import time

from bench import told
from bench.report import Report, Row, exactly, show
from bench.rig import expect, number, rig, until
from bench.sink import Sink

BUDGETS = {"few": 5, "some": 20, "many": 60}  # messages an hour
CRITICAL = 10  # of the incidents
LIMIT = 300.0  # seconds

SENT = """
    SELECT CASE WHEN kind = 'summary' THEN kind WHEN urgent THEN 'urgent' ELSE 'plain' END, count(*)
    FROM deliveries WHERE channel = %s GROUP BY 1
"""
CONFIG = "[channels]\n" + "\n".join(
    f'{name} = {{{{url = "{{{name}}}", budget = {budget}}}}}' for name, budget in BUDGETS.items()
)


def run(quick: bool) -> Report:
    count, minute = (200, 12.0) if quick else (1000, 60.0)
    sinks = {name: Sink() for name in BUDGETS}
    with rig(postgres={}, config=CONFIG.format(**{name: sink.url for name, sink in sinks.items()})) as servers:
        for name in ("alerts", "clock"):
            servers.start(name)
        expect(lambda: servers.redis.scard("rq:workers") == 1, 30, "the worker to start")
        by = told.policy(BUDGETS)
        with servers.connect() as conn:
            began = time.monotonic()
            for each in range(count):
                time.sleep(max(0.0, began + minute * each / count - time.monotonic()))
                told.open_incident(
                    conn, f"acct_{each:04d}", by, "critical" if each % (count // CRITICAL) == 0 else "medium"
                )
            opened = time.monotonic() - began
            waiting = "SELECT count(*) FROM alerts WHERE state <> 'sent' AND reason = 'first'"
            until(lambda: number(conn, waiting) == 0, LIMIT, 0.25)
            took = time.monotonic() - began
            rows = [
                Row("incidents opened", f"{count:,}", f"in {opened:.0f} s, {CRITICAL} of them critical"),
                exactly("alerts in no message and no summary", number(conn, waiting), 0),
                Row("first opened to last told", show(took, "s")),
            ]
            for name, budget in BUDGETS.items():
                sent: dict[str, int] = dict(conn.execute(SENT, (name,)).fetchall())
                plain, urgent, summaries = (sent.get(what, 0) for what in ("plain", "urgent", "summary"))
                rows += [
                    Row(f"{name}: messages", f"{plain}", f"<= {budget}", plain <= budget),
                    Row(f"{name}: of them or besides critical", f"{urgent}", f"<= {CRITICAL}", urgent <= CRITICAL),
                    exactly(f"{name}: summaries", summaries, 1),
                    exactly(f"{name}: arrived", len(sinks[name].heard), plain + urgent + summaries),
                ]
    for sink in sinks.values():
        sink.__exit__(None, None, None)
    return Report(
        about=f"{count:,} accounts open an incident within {minute:.0f} s, told to three channels with budgets of their"
        " own; group_wait 30 s, one alerts worker.",
        rows=tuple(rows),
    )
