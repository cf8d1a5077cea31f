import subprocess
import sys
from pathlib import Path

from crosswalk.lab.sweeps.claims import Claims


def test_a_trial_is_one_workers_until_it_lets_go(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)

    assert one.take(3)
    assert not other.take(3)
    assert other.take(4)
    assert (one.holds(3), one.holds(4)) == (True, False)
    one.release(3)
    assert other.take(3)


def test_the_trial_of_a_killed_worker_on_this_machine_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from crosswalk.lab.sweeps.claims import Claims\n"
        "assert Claims(Path(sys.argv[1])).take(0)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)

    assert (tmp_path / "000.json").exists()
    assert Claims(tmp_path).take(0)


def test_the_trial_of_another_machine_is_free_when_it_gives_no_sign_of_life(
    tmp_path: Path,
) -> None:
    """The lock of another machine may not be seen here, as on some network file systems."""
    gone = Claims(tmp_path, machine="there", interval=0.0)
    gone.take(0)
    gone._held[0].release()  # as if the lock did not reach us
    patient, hasty = Claims(tmp_path, machine="here"), Claims(tmp_path, machine="here", patience=0)

    assert not patient.take(0)  # never seen before: it may live
    gone.beat()
    assert not hasty.take(0)
    assert not patient.take(0)
    gone.beat()
    assert not hasty.take(0)  # it has changed since
    assert hasty.take(0)  # it has not
