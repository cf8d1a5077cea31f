import subprocess
import sys
from pathlib import Path

from crosswalk.lab.claims import Claims


def test_a_run_is_one_processes_until_it_lets_go(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)

    assert one.take("it")
    assert not other.take("it")
    assert other.take("other")
    assert (one.holds("it"), one.holds("other")) == (True, False)
    one.release("it")
    assert other.take("it")


def test_the_run_of_a_killed_process_on_this_machine_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from crosswalk.lab.claims import Claims\n"
        "assert Claims(Path(sys.argv[1])).take('it')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)

    assert (tmp_path / "it.json").exists()
    assert Claims(tmp_path).take("it")


def test_the_run_of_another_machine_is_free_when_it_gives_no_sign_of_life(
    tmp_path: Path,
) -> None:
    """The lock of another machine may not be seen here, as on some network file systems."""
    gone = Claims(tmp_path, machine="there", interval=0.0)
    gone.take("it")
    gone._held["it"].release()  # as if the lock did not reach us
    patient, hasty = Claims(tmp_path, machine="here"), Claims(tmp_path, machine="here", patience=0)

    assert not patient.take("it")  # never seen before: it may live
    gone.beat()
    assert not hasty.take("it")
    assert not patient.take("it")
    gone.beat()
    assert not hasty.take("it")  # it has changed since
    assert hasty.take("it")  # it has not
