"""Bounds on how many jobs of the local queue run at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.vocabulary.jobs import ArrayLimit
from mtf.core.vocabulary.states import JobState

if TYPE_CHECKING:
    from tests.executor.contract import Bench
    from tests.executor.local.bench import MakeBench


# Each job waits until as many as the file `together` says have run at the same time, and then long
# enough for one more to be seen.
COUNTS = """
cd "$MTF_RUN_DIR/.."; exec 9>>lock
note() { flock 9; echo "$1" >> count; flock -u 9; }
most() { awk '{ n += ($1 == "+") ? 1 : -1; if (n > m) m = n } END { print m + 0 }' count; }
note +
until [ "$(most)" -ge "$(cat together)" ]; do sleep 0.02; done
sleep 0.2
note -
"""


def counting(bench: Bench, together: int) -> Bench:
    (bench.root / "sub").mkdir(exist_ok=True)
    (bench.root / "sub" / "together").write_text(str(together))
    return bench


def test_at_most_max_parallel_jobs_run_at_a_time(local: MakeBench) -> None:
    bench = counting(local(COUNTS, max_parallel=2), together=2)
    requests = [bench.request((0, 1, 2)), bench.request((0, 1, 2))]
    for request in requests:
        bench.submit(request)
    for request in requests:
        bench.wait_ended(request)
    assert most_at_once(bench) == 2


def test_a_throttled_array_does_not_delay_other_jobs(local: MakeBench) -> None:
    bench = local('while [ ! -e "$MTF_RUN_DIR/../go" ]; do sleep 0.02; done', max_parallel=2)
    throttled, other = bench.request((0, 1, 2), throttle=1), bench.request()
    bench.submit(throttled)
    bench.submit(other)
    bench.wait_for(other, JobState.RUNNING)
    assert [v.state for v in bench.views(throttled).values()].count(JobState.RUNNING) == 1
    (bench.root / "sub" / "go").touch()
    bench.wait_ended(throttled)


def test_a_throttle_counts_all_jobs_of_a_grid_and_follows_a_change(local: MakeBench) -> None:
    bench = local('while [ ! -e "$MTF_RUN_DIR/../go" ]; do sleep 0.02; done', max_parallel=4)
    first, second = bench.request((0, 1), throttle=1), bench.request((2, 3), throttle=1)
    for request in (first, second):
        bench.submit(request)
    bench.wait_for(first, JobState.RUNNING)
    views = {**bench.views(first), **bench.views(second)}.values()
    assert [v.state for v in views].count(JobState.RUNNING) == 1
    tokens = (first.token, second.token)
    assert {n.throttle for n in bench.executor.array_limits(tokens).values()} == {1}
    bench.executor.set_limits([ArrayLimit(token, 3) for token in tokens])
    bench.wait_for(second, JobState.RUNNING)
    (bench.root / "sub" / "go").touch()
    bench.wait_ended(first)
    bench.wait_ended(second)


def test_a_new_max_parallel_applies_to_the_running_worker(local: MakeBench) -> None:
    bench = counting(local(COUNTS, max_parallel=1), together=3)
    first = bench.request((0, 1))
    bench.submit(first)
    bench.wait(first, lambda f: f[0].state is JobState.RUNNING)
    assert bench.views(first)[1].state is JobState.PENDING
    request = bench.request(tuple(range(6)))
    bench.executor = local(COUNTS, max_parallel=3).executor
    bench.submit(request)
    bench.wait_ended(request)
    bench.wait_ended(first)
    assert most_at_once(bench) == 3


def most_at_once(bench: Bench) -> int:
    now = most = 0
    for sign in (bench.root / "sub" / "count").read_text().split():
        now += 1 if sign == "+" else -1
        most = max(most, now)
    return most
