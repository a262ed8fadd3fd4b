"""Parsing SLURM's output: real texts of SLURM 22.05, and unexpected ones."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.vocabulary.states import JobState
from mtf.errors import (
    ExecutorUnavailableError,
    MtfError,
    QueueFullError,
    SubmissionUncertainError,
)
from mtf.executor.array_indices import parse_indices, render_indices
from mtf.executor.slurm import job_text
from mtf.executor.slurm.job_text import SEPARATOR, parse_sacct, parse_squeue

NAME = "search+0123456789abcdef"


def squeue(*fields: str) -> str:
    return SEPARATOR.join(fields) + SEPARATOR + "\n"


def sacct(*fields: str) -> str:
    return SEPARATOR.join(fields) + "\n"


def test_a_running_array_task_is_read_with_its_index_and_times() -> None:
    (view,) = parse_squeue(squeue("812_17", NAME, "RUNNING", "0", "1", "n3", "1767268800", "1767272400", "None"))  # fmt: skip
    assert (view.job_id, view.index, view.state, view.restarts) == (
        "812_17",
        17,
        JobState.RUNNING,
        1,
    )
    assert view.started_at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert view.ended_at is None


def test_the_estimated_start_of_a_pending_job_is_not_its_start() -> None:
    (view,) = parse_squeue(
        squeue("812", NAME, "PENDING", "0", "0", "", "1767268800", "N/A", "Resources")
    )
    assert (view.started_at, view.exit_code) == (None, None)
    assert view.expected_at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert view.reason == "waits for free resources (Resources)"


@pytest.mark.parametrize("why", ["JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue"])
def test_a_held_job_is_not_pending(why: str) -> None:
    (view,) = parse_squeue(squeue("812", NAME, "PENDING", "0", "0", "", "N/A", "N/A", why))
    assert view.state is JobState.HELD
    assert f"({why})" in view.reason
    assert view.cure.endswith("scontrol release 812")


def test_tasks_that_squeue_lists_together_are_held_only_if_all_are() -> None:
    line = squeue("8_[0-2]", NAME, "PENDING", "0", "0", "", "N/A", "N/A", "BeginTime,JobHeldUser")
    assert {view.state for view in parse_squeue(line)} == {JobState.PENDING}
    assert job_text.merged_arrays(line) == ["8"]
    unavailable = line.replace("BeginTime,JobHeldUser", "Priority")
    assert job_text.merged_arrays(unavailable) == []


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        (("DEADLINE", "0", "0", "", "N/A", "1767272400", "DeadLine"), JobState.DEADLINE),
        (("BOOT_FAIL", "0", "0", "n1", "1", "2", "BootFailure"), JobState.NOT_STARTED),
        (("NODE_FAIL", "0", "0", "n1", "N/A", "2", "NodeDown"), JobState.NOT_STARTED),
        (("NODE_FAIL", "0", "0", "n1", "1", "2", "NodeDown"), JobState.NODE_FAILURE),
        (("FAILED", "0", "0", "n1", "1", "2", "JobLaunchFailure"), JobState.NOT_STARTED),
        (("FAILED", "256", "0", "n1", "1", "2", "NonZeroExitCode"), JobState.FAILED),
    ],
)
def test_a_job_that_never_began_has_not_failed(fields: tuple[str, ...], state: JobState) -> None:
    (view,) = parse_squeue(squeue("8", NAME, *fields))
    assert view.state is state


def test_a_job_that_slurm_cancelled_itself_says_so() -> None:
    line = squeue("8", NAME, "CANCELLED", "0", "0", "", "1", "2", "DependencyNeverSatisfied")
    (view,) = parse_squeue(line)
    assert view.cancelled_by == "SLURM (DependencyNeverSatisfied)"


def test_the_account_of_one_task_counts_more_than_that_of_those_it_waited_with() -> None:
    together = sacct("8_[0-1]", NAME, "CANCELLED by 0", "0:0", "", "Unknown", "1", "")
    alone = sacct("8_1", NAME, "COMPLETED", "0:0", "n1", "1", "2", "")
    views = parse_sacct(together + alone)
    assert next(v.state for v in views if v.index == 1) is JobState.COMPLETED


@pytest.mark.parametrize(
    ("status", "code", "signal"), [("256", 1, None), ("1792", 7, None), ("9", 0, 9), ("15", 0, 15)]
)
def test_squeues_wait_status_is_split_into_exit_code_and_signal(
    status: str, code: int, signal: int | None
) -> None:
    (view,) = parse_squeue(
        squeue("8", NAME, "FAILED", status, "0", "n1", "1", "2", "NonZeroExitCode")
    )
    assert (view.exit_code, view.signal) == (code, signal)


def test_jobs_of_others_and_broken_lines_are_skipped() -> None:
    assert parse_squeue(squeue("8", "train", "RUNNING", "0", "0", "n1", "1", "2", "None") + "slurm_load_jobs error\n\n") == []  # fmt: skip


def test_a_job_in_an_unknown_state_is_not_over() -> None:
    (view,) = parse_squeue(squeue("8", NAME, "DREAMING", "0", "0", "n1", "1", "2", "None"))
    assert view.state is JobState.UNKNOWN


def test_sacct_names_the_user_who_cancelled() -> None:
    (view,) = parse_sacct(sacct("8_3", NAME, "CANCELLED by 1000", "0:15", "n1", "1", "2", "None"))
    assert (view.state, view.cancelled_by, view.signal) == (JobState.CANCELLED, "1000", 15)


@pytest.mark.parametrize(
    ("job", "indices"),
    [("8", [None]), ("8_17", [17]), ("8_[3]", [3]), ("8_[0-2,5]", [0, 1, 2, 5]), ("8_[0-9:3,12%4]", [0, 3, 6, 9, 12])],
)  # fmt: skip
def test_each_task_of_an_array_gets_its_own_view(job: str, indices: list[int | None]) -> None:
    fields = (NAME, "PENDING", "0", "0", "", "N/A", "N/A", "Resources")
    views = parse_squeue(squeue(job, *fields))
    assert [v.index for v in views] == indices
    assert [v.job_id for v in views] == ["8" if i is None else f"8_{i}" for i in indices]
    line = f"JobId=9 ArrayJobId=8 ArrayTaskId={job[2:].strip('[]') or 4294967294} JobName={NAME} JobState=PENDING"
    assert [(v.job_id, v.index) for v in job_text.parse_scontrol(line)] == [(v.job_id, v.index) for v in views]  # fmt: skip
    accounts = sacct(job, NAME, "CANCELLED by 0", "0:0", "", "Unknown", "1", "")
    assert [v.index for v in parse_sacct(accounts)] == indices


def test_the_tasks_of_a_truncated_list_are_unknown() -> None:
    (view,) = parse_squeue(
        squeue("8_[1,3,...]", NAME, "PENDING", "0", "0", "", "N/A", "N/A", "None")
    )
    assert (view.job_id, view.token, view.index) == ("", NAME[-16:], None)
    assert view.state is JobState.UNKNOWN
    assert "'...' is not a range" in view.reason
    assert parse_sacct(sacct("8_[1,3,...]", NAME, "PENDING", "0:0", "", "", "", "")) == []


@pytest.mark.parametrize(
    "text", ["", "x", "1-", "-1", "1:2", "1-5:0", "0-9999999", "1--2", "²", "1,,2", "9" * 400]
)
def test_what_is_no_list_of_indices_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|indices|zero"):
        parse_indices(text)


@pytest.mark.parametrize(
    "line",
    [
        squeue("8_[1-", NAME, "PENDING", "0", "0", "", "N/A", "N/A", "None"),
        squeue("8_[0-99999999]", NAME, "PENDING", "0", "0", "", "N/A", "N/A", "None"),
        squeue("", NAME, "RUNNING", "0", "0", "", "N/A", "N/A", "None"),
        squeue("eight", NAME, "RUNNING", "0", "0", "", "N/A", "N/A", "None"),
        squeue("8", NAME, "RUNNING"),
        f"slurm_load_jobs error for {NAME}\n",
    ],
)
def test_one_line_that_cannot_be_read_leaves_the_others_known(line: str) -> None:
    other = "other+fedcba9876543210"
    sound = squeue("9", other, "RUNNING", "0", "0", "n1", "1767268800", "N/A", "None")
    views = {
        str(view.token): view for view in parse_squeue(sound + line + sound.replace("9", "10", 1))
    }
    assert views["fedcba9876543210"].state is JobState.RUNNING
    assert views[NAME[-16:]].state is JobState.UNKNOWN
    assert "cannot be read" in views[NAME[-16:]].reason


@given(st.sets(st.integers(0, 5000), min_size=1))
def test_indices_are_read_back_as_they_were_written(indices: set[int]) -> None:
    assert parse_indices(render_indices(indices)) == sorted(indices)


def test_scontrols_output_replaces_squeues() -> None:
    line = (
        "JobId=4 ArrayJobId=1 ArrayTaskId=2 JobName=search+0123456789abcdef UserId=root(0) Restarts=2"
        " JobState=FAILED Reason=NonZeroExitCode ExitCode=2:0 NodeList=n1 StartTime=1 EndTime=2\n"
        "JobId=9 JobName=other JobState=RUNNING ExitCode=0:0\n"
    )
    (view,) = job_text.parse_scontrol(line)
    assert (view.job_id, view.index, view.exit_code, view.restarts) == ("1_2", 2, 2, 2)


FAILED = "sbatch: error: Batch job submission failed: "
POLICY = (
    FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (FAILED + "Socket timed out on send/recv operation", SubmissionUncertainError),
        (FAILED + "Zero Bytes were transmitted or received", SubmissionUncertainError),
        (FAILED + "Unable to contact slurm controller (receive failure)", SubmissionUncertainError),
        (FAILED + "Unable to contact slurm controller (connect failure)", ExecutorUnavailableError),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n" + FAILED + "Resource temporarily unavailable", ExecutorUnavailableError),
        (FAILED + "Required partition not available (inactive or drain)", ExecutorUnavailableError),
        ("sbatch: error: Munge encode failed: Failed to access \"/run/munge.socket.2\": No such file or directory\n" + FAILED + "Protocol authentication error", ExecutorUnavailableError),
        ("sbatch: error: AssocMaxSubmitJobLimit\n" + POLICY, QueueFullError),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + POLICY, QueueFullError),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit\n" + POLICY, type(None)),
        (FAILED + "Invalid account or account/partition combination specified", type(None)),
        (FAILED + "Invalid qos specification", type(None)),
        ("sbatch: error: Memory specification can not be satisfied\n" + FAILED + "Requested node configuration is not available", type(None)),
        ("sbatch: error: Invalid generic resource (gres) specification", type(None)),
        (FAILED + "Invalid feature specification", type(None)),
        (FAILED + "Requested reservation is invalid", type(None)),
        (FAILED + "Invalid job array specification", type(None)),
        (FAILED + "Invalid node name specified", type(None)),
        (FAILED + "Invalid license specification", type(None)),
        (FAILED + "Requested node configuration is not available", type(None)),
        ("sbatch: error: Invalid --time specification", type(None)),
    ],
)  # fmt: skip
def test_sbatchs_messages_are_uncertain_unavailable_full_or_a_refusal(
    text: str, kind: type
) -> None:
    assert type(job_text.submission_error(text)) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", type(None)),
        ("scancel: error: Kill job error on job id 9: Invalid job id specified", type(None)),
        ("Invalid job id specified for job 999999\n15_0-2: Job is pending execution", type(None)),
        ("34_0-1: No error\n34_7: Invalid job id specified", type(None)),
        ("34_0-1: No error\n34_7: Requested operation is presently disabled", MtfError),
        ("Requested operation is presently disabled for job 17", MtfError),
        ("scancel: error: Kill job error on job id 14_0: Access/permission denied", MtfError),
        ("scancel: error: Kill job error on job id 9: Unable to contact slurm controller (connect failure)", ExecutorUnavailableError),
        ("scancel: error: Kill job error on job id 9: Socket timed out on send/recv operation", ExecutorUnavailableError),
    ],
)  # fmt: skip
def test_a_command_on_jobs_fails_only_if_there_was_something_to_do(text: str, kind: type) -> None:
    assert type(job_text.command_error(text)) is kind


def test_a_refusal_is_reported_once_without_the_programs_name() -> None:
    text = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name specified\n"  # fmt: skip
    assert job_text.submission_error(text) is None
    assert str(job_text.refusal(text)) == (
        "invalid partition specified: x; Batch job submission failed: Invalid partition name specified"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # sbatch --test-only of SLURM 22.05
        (
            "sbatch: error: invalid partition specified: x\n"
            "allocation failure: Invalid partition name specified",
            "invalid partition specified: x; Invalid partition name specified",
        ),
        ("allocation failure: Invalid qos specification\n", "Invalid qos specification"),
        ("allocation failure: Requested node configuration is not available\n", None),  # now
        ("allocation failure: Unable to contact slurm controller (connect failure)\n", None),
        ("", None),
    ],
)
def test_a_trial_tells_what_sbatch_would_refuse_for_good(text: str, expected: str | None) -> None:
    assert job_text.lasting_refusal(text) == expected


def test_every_state_of_the_manual_is_known() -> None:
    # squeue(1) of SLURM 22.05, JOB STATE CODES
    manual = """BOOT_FAIL CANCELLED COMPLETED CONFIGURING COMPLETING DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY
    PENDING PREEMPTED RUNNING RESV_DEL_HOLD REQUEUE_FED REQUEUE_HOLD REQUEUED RESIZING REVOKED SIGNALING
    SPECIAL_EXIT STAGE_OUT STOPPED SUSPENDED TIMEOUT"""
    later = "EXPEDITING LAUNCH_FAILED POWER_UP_NODE RECONFIG_FAIL UPDATE_DB"
    assert job_text.STATES.keys() == set(manual.split()) | set(later.split())


@given(st.integers(1, 10**6), st.none() | st.integers(1, 10**6))
def test_an_array_is_limited_by_both_settings_of_slurm(size: int, tasks: int | None) -> None:
    parameters = "(null)" if tasks is None else f"bf_window=60,max_array_tasks={tasks},defer"
    config = (
        "Configuration data as of 2026-01-01T00:00:00\n"
        f"MaxArraySize            = {size}\nSchedulerParameters     = {parameters}\n"
    )
    assert job_text.max_array_size(config) == min(size, size if tasks is None else tasks)


def test_a_configuration_without_a_limit_of_arrays_gives_none() -> None:
    assert job_text.max_array_size("SchedulerParameters = max_array_tasks=5\n") is None
    assert job_text.max_array_size("") is None
