"""Scripts that tests run in processes of their own.

The processes are forked from one process that has imported the package, since the imports take five seconds of CPU.
Tests of what is imported, and of how a process ends, begin their processes with `subprocess`.
"""

import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

import pytest

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["ops_aimmd", "openpathsampling.experimental.simstore", "child_processes"])

PYTEST = Path(pytest.__file__).with_name("__main__.py")
"""The script that `python -m pytest` runs."""


def _run(script, arguments, folder, environment, output, errors):
    """What the child process does."""
    os.chdir(folder)
    os.dup2(output.fileno(), 1)
    output.close()
    os.dup2(os.open(errors, os.O_WRONLY), 2)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", closefd=False)
    os.environ.update(environment)
    sys.argv = [script, *arguments]
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name="__main__")


class Child:
    """A script that runs in a process of its own.

    Parameters
    ----------
    script : path
    *arguments
        What stands after the script on the command line.
    folder : path
        The working directory.
    **environment : str
        Changes of the environment.

    Attributes
    ----------
    stdout : text file
        What the script prints, line by line as it comes.
    returncode : int or None
        As that of `subprocess.Popen`, once `finish` or `kill` was called.
    """

    def __init__(self, script, *arguments, folder=".", **environment):
        self.returncode = None
        self._errors = tempfile.NamedTemporaryFile("r")
        reader, writer = FORKS.Pipe(duplex=False)
        words = [str(argument) for argument in arguments]
        work = os.path.abspath(script), words, os.path.abspath(folder), environment, writer, self._errors.name
        threads = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        try:
            forkserver.ensure_running()
        finally:
            if threads is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = threads
        self._process = FORKS.Process(target=_run, args=work)
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()))
        reader.close()

    def finish(self):
        """Wait for the end; what else came on stdout and, all of it, on stderr."""
        with self.stdout, self._errors:
            output = self.stdout.read()
            self._process.join()
            self.returncode = self._process.exitcode
            return output, self._errors.read()

    def kill(self, number=signal.SIGKILL):
        """Send a signal and wait for the end; what came on stderr."""
        os.kill(self._process.pid, number)
        return self.finish()[1]


def run_script(script, *arguments, **environment):
    """The script as a `subprocess.CompletedProcess`, whatever its end."""
    child = Child(script, *arguments, **environment)
    output, errors = child.finish()
    return subprocess.CompletedProcess([script, *arguments], child.returncode, output, errors)


def run_code(code, folder, *arguments):
    """The same for lines of Python, which are written into a file of the folder."""
    script = Path(folder) / "code.py"
    script.write_text(code)
    return run_script(script, *arguments)


def result_of(script, *arguments, **environment):
    """The last line that a script prints, read as JSON; it must end well."""
    done = run_script(script, *arguments, **environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
