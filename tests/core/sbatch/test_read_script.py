"""The options in job scripts, read as sbatch reads them. tests/slurm asks sbatch itself."""

from __future__ import annotations

from typing import Any

import pytest

from mtf.core.sbatch.option_rules import forbidden
from mtf.core.sbatch.option_table import BY_SHORT, OPTIONS, Kind
from mtf.core.sbatch.read_script import JobOptions, ScriptOptionError, parse_words, read_script


def values(directives: str) -> dict[str, Any]:
    return dict(read_script(f"#!/bin/bash\n{directives}\ntrue\n").values)


@pytest.mark.parametrize(
    "line",
    [
        "#SBATCH --partition=high",
        "#SBATCH --partition high",
        "#SBATCH -p high",
        "#SBATCH -phigh",
        "#SBATCH --part=high",
        "#SBATCH-p high",
        "#SBATCH --partition\n#SBATCH high",
        "#SLURM -p high",
        "#SBATCH -p 'high'",
        "#SBATCH '--partition=high'",
        "#SBATCH\t-p\vhigh",
        "#SBATCH -p high # -p low",
        "#SBATCH -p low\n#SBATCH -p high",
        "\n \t\n#note\n#SBATCH -p high",
        "#SBATCH -p high --",
        "#SBATCH -p hi'gh'",
    ],
)
def test_every_spelling_of_an_option_is_read(line: str) -> None:
    assert values(line) == {"partition": "high"}


@pytest.mark.parametrize(
    "line",
    [
        " #SBATCH -p high",
        "##SBATCH -p high",
        "# SBATCH -p high",
        "#sbatch -p high",
        "cd /\n#SBATCH -p high",
        "\u00a0\n#SBATCH -p high",
    ],
)
def test_what_sbatch_takes_for_a_comment_is_no_option(line: str) -> None:
    assert values(line) == {}


def test_a_line_ends_at_a_newline_alone() -> None:
    assert values("#SBATCH --comment=a\u2028#SBATCH") == {"comment": "a\u2028"}
    assert values("#SBATCH --hold\x0c--time=5") == {"hold": None, "time": "5"}


def test_several_options_in_one_word_and_their_arguments() -> None:
    assert values("#SBATCH -HN2 -k -p high") == {
        "hold": None,
        "nodes": "2",
        "no-kill": None,
        "partition": "high",
    }
    assert values("#SBATCH --nice --exclusive=user") == {"nice": None, "exclusive": "user"}
    assert values("#SBATCH --licenses --exclusive") == {"licenses": "--exclusive"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("#SBATCH --ti=5", "--time, --time-min"),
        ("#SBATCH high", "not an option"),
        ("#SBATCH -p high -- -p low", "not an option"),
        ("#SBATCH --time", "needs a value"),
        ("#SBATCH --hold=1", "takes no value"),
        ("#SBATCH -Z", "not an option"),
        ("#SBATCH --comment='a", "unmatched"),
        ("#SBATCH -p a\\ b", "backslash"),
        ("#SBATCH '' -p high", "not an option"),
        ("#SBATCH hetjob", "heterogeneous"),
        ("#SBATCH -p low packjob -p high", "heterogeneous"),
        ("true\n#PBS -l walltime=9:00:00", "#PBS lines"),
        ("true\ncat <<X\n#BSUB -q high\nX", "#BSUB lines"),
        ("#BB create_persistent name=x capacity=100", "#BB lines"),
        ("#DW jobdw capacity=1TB", "#DW lines"),
        ("#SBATCH -p high\0", "NUL"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(line: str, message: str) -> None:
    with pytest.raises(ScriptOptionError, match=message):
        values(line)


def test_an_option_of_a_plugin_is_read_but_not_known() -> None:
    (option,) = read_script("#SBATCH --container-image=x\n").all
    assert (option.name, option.value, option.is_known) == ("container-image", "x", False)


def reasons(*words: str, allowed: tuple[str, ...] = ()) -> list[str]:
    options = parse_words([(word, 0) for word in words])
    return [reason for _, reason in forbidden(options, allowed)]


@pytest.mark.parametrize(
    "word",
    [
        "--clusters=other",
        "-Mother",
        "--uid=0",
        "--gid=0",
        "--wrap=id",
        "--export=ALL,LD_PRELOAD=/x",
        "--chdir=/",
        "-D/",
        "--input=/etc/passwd",
        "--get-user-env",
        "--test-only",
        "--wait",
        "-W",
        "--bbf=/etc/passwd",
        "--nodefile=/etc/passwd",
        "--nodelist=/etc/passwd",
        "--exclude=./x",
        "--ignore-pbs",
        "--dependency=singleton",
        "--external",
        "--cluster-con=a",
    ],
)
def test_an_option_that_leads_out_is_refused_even_if_it_is_listed(word: str) -> None:
    assert reasons(word)
    assert reasons(word, allowed=("clusters=", "uid=", "wrap=", "wait", "bbf=", "nodelist="))


@pytest.mark.parametrize(
    "word",
    ["--gres=help", "--gres=list", "--hint=help", "--mem-bind=quiet,help", "--cpu-freq=Help"],
)
def test_a_value_for_which_sbatch_submits_nothing_is_refused(word: str) -> None:
    assert "submits nothing" in reasons(word)[0]


def test_an_unknown_option_needs_permission_by_name_and_form() -> None:
    assert "add container-image= to policies" in reasons("--container-image=x")[0]
    assert reasons("--container-image=x", allowed=("container-image=",)) == []
    assert (
        "as --container-image=VALUE only"
        in reasons("--container-image", "--hold", allowed=("container-image=",))[0]
    )
    assert "needs permission" in reasons("--reboot")[0]
    assert reasons("--reboot", allowed=("reboot",)) == []


def test_the_table_has_each_option_once() -> None:
    shorts = [option.short for option in OPTIONS.values() if option.short]
    assert len(shorts) == len(set(shorts)) == len(BY_SHORT)
    assert {option.kind for option in OPTIONS.values()} == set(Kind)
    assert all(name == option.name for name, option in OPTIONS.items())


def test_equal_options_are_compared_by_their_values() -> None:
    once, twice = read_script("#SBATCH -N2\n"), read_script("#SBATCH -N1 --nodes=2\n")
    assert isinstance(once, JobOptions)
    assert once.values == twice.values == {"nodes": "2"}
    assert [str(option) for option in twice.all] == ["--nodes=1", "--nodes=2"]
