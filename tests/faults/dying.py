"""An events worker that sends itself a signal at one moment of its work: the name and the number are its arguments.

Only the moment is chosen here; everything up to it is done by the worker that is shipped.
"""

import os
import signal
import sys
from typing import Any

from rq.executions import Execution
from rq.job import Job as RQJob

from billingwatch.cli.start import connect_redis, load_rules
from billingwatch.queues import EVENTS
from billingwatch.settings import read_stores
from worker.process import Process, start
from worker.runner import Runner

TAKEN = "taken"  # moved out of the queue, known to nobody
REGISTERED = "registered"  # in the registry of begun jobs, not begun
BEGUN = "begun"
DONE = "done"  # committed, and nobody told
MAINTAINING = "maintaining"  # no job: while it holds the lock of maintenance


class Dying(Runner):
    moment = ""
    number = signal.SIGKILL

    def die_at(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = ""
            os.kill(os.getpid(), self.number)

    def clean_registries(self) -> None:
        if self.moment == MAINTAINING:
            self.queues[0].acquire_maintenance_lock()
        self.die_at(MAINTAINING)
        super().clean_registries()  # type: ignore[no-untyped-call]

    def prepare_execution(self, job: RQJob) -> Execution:
        self.die_at(TAKEN)
        execution = super().prepare_execution(job)
        self.die_at(REGISTERED)
        return execution

    def prepare_job_execution(self, job: RQJob, remove_from_intermediate_queue: bool = False) -> None:
        super().prepare_job_execution(job, remove_from_intermediate_queue)
        self.die_at(BEGUN)

    def handle_execution_ended(self, *args: Any) -> None:
        self.die_at(DONE)
        super().handle_execution_ended(*args)


def main(moment: str, number: signal.Signals) -> None:
    stores = read_stores(os.environ)
    process = Process(stores, connect_redis(stores.redis_url), *load_rules()[:2], name="worker events")
    start(process)
    runner = Dying(process.queue(EVENTS), process)
    runner.moment, runner.number = moment, number
    runner.work(logging_level="WARNING")


if __name__ == "__main__":
    main(sys.argv[1], signal.Signals(int(sys.argv[2])))
