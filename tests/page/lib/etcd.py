"""A real etcd of one member on free ports."""

import shutil

from .registry import Process, answers, free_port, wait_for


class Etcd:
    def __init__(self, folder):
        self.folder = folder
        self.url, self._peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._process = None
        self.start()

    def start(self):
        command = [shutil.which("etcd") or "etcd", "--name=one", f"--data-dir={self.folder}/etcd", "--logger=zap"]
        command += [f"--{name}-client-urls={self.url}" for name in ("listen", "advertise")]
        command += [f"--{name}-peer-urls={self._peer}" for name in ("listen", "initial-advertise")]
        command += [f"--initial-cluster=one={self._peer}"]
        self._process = Process(command, self.folder)
        wait_for(lambda: answers(f"{self.url}/health"), "etcd answers")

    def stop(self):
        self._process.stop()
