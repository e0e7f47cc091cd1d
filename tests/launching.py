"""Running the package in processes of their own, as torchrun starts them.

They are forked from one that has imported the package: in a new interpreter that alone takes ten seconds.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from multiprocessing import connection
from pathlib import Path

import torch.multiprocessing as mp

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["launching", "st_l0.encoder.sparse_encoder", "st_l0.training.train_model"])


def run(processes, *arguments, folder=None):
    """Run a script, or ``-m`` and a module, on so many processes; what came of it, as of `subprocess.run`.

    As with torchrun, the death of one process is that of all.
    """
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if processes > 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    with tempfile.TemporaryDirectory() as outputs:
        started = []
        for rank in range(processes):
            own = {**os.environ, **environment}
            if processes > 1:
                own |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            given = (list(map(str, arguments)), own, folder, f"{outputs}/{rank}")
            started.append(FORKED.Process(target=_run, args=given))
            started[-1].start()
        codes = [process.exitcode for process in started]
        while None in codes and not any(codes):
            alive = [one.sentinel for one, code in zip(started, codes, strict=True) if code is None]
            connection.wait(alive)
            codes = [process.exitcode for process in started]
        for process in started:
            process.terminate()
            process.join()
        texts = [
            "".join(Path(f"{outputs}/{rank}.{name}").read_text() for rank in range(processes))
            for name in ("out", "err")
        ]
    code = codes[0] if processes == 1 else int(any(codes))
    return subprocess.CompletedProcess(arguments, code, *texts)


def spawn(function, arguments, processes):
    """`torch.multiprocessing.spawn` of `function(rank, *arguments)`, forked."""
    mp.start_processes(function, arguments, nprocs=processes, start_method="forkserver")


def _run(arguments, environment, folder, output):
    """What a forked process does."""
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    if folder is not None:
        os.chdir(folder)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")
