"""What killed a process: the kernel's counters of its control group tell an OOM kill from a person's kill -9."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from batchd.jobs.processes import death

_EVENTS = "low 0\nhigh 0\nmax 71\noom 2\noom_kill {}\noom_group_kill 0\n"
_VMSTAT = "nr_free_pages 1\noom_kill {}\nnuma_hit 2\n"
_CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
_SERVICE = "system.slice/batchd.service"


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"proc/self/cgroup": f"0::/{_SERVICE}", f"sys/fs/cgroup/{_SERVICE}/memory.events": _EVENTS.format(3)}, 3),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.events": _EVENTS.format(4)}, 4),
        (
            {
                "proc/self/cgroup": f"4:cpu,memory:/{_SERVICE}\n0::/",
                f"sys/fs/cgroup/memory/{_SERVICE}/memory.oom_control": _CONTROL.format(5),
            },
            5,
        ),
        ({"proc/self/cgroup": "0::/gone", "sys/fs/cgroup/memory.events": "low 0\n"}, 9),
        ({"proc/self/cgroup": "nonsense"}, 9),
        ({}, 9),
    ],
    ids=["service", "container", "cgroup v1", "no counter there", "nonsense", "no cgroups"],
)
def test_the_own_groups_counter_counts_before_the_machines(tmp_path: Path, files: dict[str, str], count: int) -> None:
    """Another container's OOM kill is not ours; where the group has no counter the machine's must do."""
    for name, content in {"proc/vmstat": _VMSTAT.format(9), **files}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert death.oom_kills(tmp_path) == count


def test_a_machine_that_says_nothing_has_killed_nobody(tmp_path: Path) -> None:
    """Without /proc a death is still reported."""
    assert death.oom_kills(tmp_path) == 0


@pytest.mark.parametrize(
    ("before", "said"), [(1, "the kernel's OOM killer was at work"), (2, "somebody sent it")], ids=["OOM", "a person"]
)
def test_a_sigkill_is_the_kernels_when_its_counter_grew(
    monkeypatch: pytest.MonkeyPatch, before: int, said: str
) -> None:
    """Only a SIGKILL, and only when the counter has grown since the run began."""
    monkeypatch.setattr(death, "oom_kills", lambda: 2)
    assert said in death.died(-signal.SIGKILL, "", oom_kills_before=before).message
    assert "OOM" not in death.died(-signal.SIGSEGV, "", oom_kills_before=before).message
