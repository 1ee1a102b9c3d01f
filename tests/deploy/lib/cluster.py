"""A real Kubernetes on this machine: API server, controllers, scheduler, kubelet on the Docker Engine, kube-proxy.

Built from Debian's source package, since a machine that can't pull images can't use a published cluster. Version 1.20 is
the oldest that the core workloads support and the last that runs on the Docker Engine directly. The first build takes
about ten minutes. Limits: NetworkPolicies are not enforced, PodSecurity and newer API groups do not exist yet, and DNS
resolves only the one name that the platform needs.
"""

import json
import os
import signal
import subprocess
from pathlib import Path

from .harness import ROOT, WORK, Failed, run, say, wait_for

HOME = WORK / "kubernetes"
STATE = HOME / "state"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
COMMANDS = {"go": "golang-go", "etcd": "etcd-server", "jq": "jq", "rsync": "rsync", "dnsmasq": "dnsmasq-base",
            "conntrack": "conntrack", "openssl": "openssl", "iptables": "iptables", "patch": "patch", "make": "make"}
# Documentation addresses (RFC 5737): nothing outside this machine has one.
SERVICES = "198.51.100.0/24"
API, ETCD = 36443, 36379
KUBECONFIG = f"""\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://127.0.0.1:{API}", insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{token: test-admin}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""


def kubectl(*arguments, **options):
    return run("kubectl", "--kubeconfig", STATE / "kubeconfig", *arguments, **options)


def shell(script, **options):
    """Runs a script that has the functions of docker/offline/lib.sh."""
    return run("bash", "-euc", f". {ROOT}/docker/offline/lib.sh\n{script}", **options)


def programs():
    """Returns the folder of the programs, and builds them if they are missing."""
    folder = HOME / "bin"
    if all((folder / name).is_file() for name in PROGRAMS):
        return folder
    shell("\n".join(f"need {command} {package}" for command, package in COMMANDS.items()), timeout=600)
    source = HOME / "source"
    source.mkdir(parents=True, exist_ok=True)
    say("building Kubernetes from Debian's source package")
    shell(f"""
        cd {source}
        mkdir -p apt/lists/partial apt/archives/partial apt/none
        printf 'Types: deb-src\\nURIs: %s\\nSuites: bookworm\\nComponents: main\\nSigned-By: %s\\n' \
            "$(debian_mirror)" "$(debian_keyring)" >apt/source.sources
        apt=(apt-get --quiet -o Dir::Etc::SourceList=$PWD/apt/source.sources -o Dir::Etc::SourceParts=$PWD/apt/none
            -o Dir::State::Lists=$PWD/apt/lists -o Dir::Cache=$PWD/apt -o APT::Sandbox::User=root)
        "${{apt[@]}}" update
        "${{apt[@]}}" source --download-only kubernetes
        mkdir -p tree
        tar --extract --gzip --strip-components 1 --directory tree --file kubernetes_*.orig.tar.gz
        # An engine inside a virtual machine or container often may not lower the OOM score of its containers.
        sed --in-place 's/defaultSandboxOOMAdj int = -998/defaultSandboxOOMAdj int = 0/' \
            tree/pkg/kubelet/dockershim/docker_sandbox.go
    """, timeout=600)
    version = next(source.glob("*.orig.tar.gz")).name.split("really")[-1].split("_")[-1].removesuffix(".orig.tar.gz")
    major, minor, _ = version.split(".")
    (source / "version").write_text(
        f"KUBE_GIT_COMMIT=archive\nKUBE_GIT_TREE_STATE=archive\nKUBE_GIT_VERSION=v{version}\n"
        f"KUBE_GIT_MAJOR={major}\nKUBE_GIT_MINOR={minor}\n")
    env = {"HOME": str(source), "GOPATH": str(source / "go"), "KUBE_GIT_VERSION_FILE": str(source / "version"),
           "FORCE_HOST_GO": "y", "KUBE_BUILD_PLATFORMS": "linux/amd64"}
    what = " ".join(f"cmd/{name}" for name in PROGRAMS)
    run("make", "-C", source / "tree", f"WHAT={what}", env=env, timeout=3000)
    folder.mkdir(exist_ok=True)
    for name in PROGRAMS:
        (source / "tree" / "_output" / "bin" / name).rename(folder / name)
    run("rm", "-rf", source)
    return folder


class Cluster:
    """`with Cluster() as cluster: …`; all its processes end with the block."""

    def __init__(self):
        self.processes = []

    def start(self, name, *command):
        log = open(STATE / f"{name}.log", "w", encoding="utf-8")  # closed with the process's own copy
        self.processes.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log,
                                               stdin=subprocess.DEVNULL, cwd=STATE))
        log.close()

    def __enter__(self):
        folder = programs()
        run("rm", "-rf", STATE)
        (STATE / "certs").mkdir(parents=True)
        (STATE / "kubeconfig").write_text(KUBECONFIG)
        (STATE / "tokens.csv").write_text('test-admin,admin,admin,"system:masters"\n')
        run("openssl", "genrsa", "-out", STATE / "sa.key", "2048")
        run("openssl", "rsa", "-in", STATE / "sa.key", "-pubout", "-out", STATE / "sa.pub")
        try:
            self._start_all(folder)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_all(self, folder):
        peer, client = f"http://127.0.0.1:{ETCD + 1}", f"http://127.0.0.1:{ETCD}"
        self.start("etcd", "etcd", "--data-dir", STATE / "etcd", "--listen-client-urls", client,
                   "--advertise-client-urls", client, "--listen-peer-urls", peer, "--unsafe-no-fsync")
        keys = (f"--service-account-key-file={STATE}/sa.pub", f"--service-account-signing-key-file={STATE}/sa.key",
                "--service-account-issuer=https://kubernetes.default.svc")
        gateway = json.loads(run("ip", "-json", "-4", "address", "show", "docker0"))[0]["addr_info"][0]["local"]
        self.start("apiserver", folder / "kube-apiserver", f"--etcd-servers={client}", "--bind-address=127.0.0.1",
                   f"--secure-port={API}", "--insecure-port=0", f"--cert-dir={STATE}/certs",
                   f"--token-auth-file={STATE}/tokens.csv", "--authorization-mode=RBAC",
                   f"--service-cluster-ip-range={SERVICES}", f"--advertise-address={gateway}",
                   "--kubelet-preferred-address-types=InternalIP", *keys)
        self.answers("the API server", "ok", "get", "--raw", "/readyz")
        config = f"--kubeconfig={STATE}/kubeconfig"
        common = ("--leader-elect=false", "--port=0", f"--cert-dir={STATE}/certs")
        self.start("controllers", folder / "kube-controller-manager", config, *common, f"--secure-port={API + 1}",
                   f"--service-account-private-key-file={STATE}/sa.key")
        self.start("scheduler", folder / "kube-scheduler", config, *common, f"--secure-port={API + 2}")
        pause_image()
        self.start("kubelet", folder / "kubelet", config, "--container-runtime=docker", "--cgroup-driver=cgroupfs",
                   "--fail-swap-on=false", "--pod-infra-container-image=hubspoke-test/pause", "--eviction-hard=",
                   "--image-gc-high-threshold=100",  # never: this machine's images are not the kubelet's to remove
                   f"--cluster-dns={gateway}", "--cluster-domain=cluster.local", f"--root-dir={STATE}/kubelet",
                   f"--cert-dir={STATE}/certs", "--hostname-override=node", f"--node-ip={gateway}",
                   f"--port={API + 3}", f"--healthz-port={API + 4}")
        self.start("proxy", folder / "kube-proxy", config, "--hostname-override=node", "--proxy-mode=iptables",
                   f"--healthz-bind-address=127.0.0.1:{API + 5}", f"--metrics-bind-address=127.0.0.1:{API + 6}",
                   "--conntrack-max-per-core=0")
        self.gateway = gateway
        self.answers("the node", " Ready", "get", "nodes")

    def answers(self, what, text, *command):
        def answered():
            for process in self.processes:
                if process.poll() is not None:
                    raise Failed(f"{process.args[0]} exited {process.returncode}; its log is in {STATE}")
            return text in kubectl(*command, may_fail=True)

        wait_for(what, answered, 90, 1)

    def name(self, host, address):
        """Makes one name resolvable for pods."""
        self.start("dns", "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
                   f"--listen-address={self.gateway}", "--bind-interfaces", f"--address=/{host}/{address}", "--pid-file=")

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        left = run("docker", "ps", "--all", "--quiet", "--filter", "name=^/k8s_", may_fail=True).split()
        if left:
            run("docker", "rm", "--force", *left, may_fail=True)
        run(HOME / "bin" / "kube-proxy", "--cleanup", may_fail=True)
        # Removes only the kubelet's chains.
        run("sh", "-c", "iptables-save | grep --invert-match KUBE- | iptables-restore", may_fail=True)
        unmount(STATE / "kubelet")


def unmount(folder):
    """Unmounts tmpfs volumes, which the kubelet leaves mounted if it stops before its pods."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted((place for place in mounts if place.startswith(str(folder))), reverse=True):
        run("umount", place, may_fail=True)


def pause_image():
    """Builds the container that owns a pod's network namespace. It waits for a signal."""
    if run("docker", "images", "--quiet", "hubspoke-test/pause").strip():
        return
    folder = STATE / "pause"
    folder.mkdir()
    (folder / "pause.c").write_text(
        "#include <signal.h>\n#include <unistd.h>\nstatic void end(int s) { (void)s; _exit(0); }\n"
        "int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }\n")
    run("gcc", "-O", "-static", "-o", folder / "pause", folder / "pause.c")
    shell(f"tar --create --directory {folder} pause | docker import --change 'ENTRYPOINT [\"/pause\"]' - hubspoke-test/pause")


def ready(kind, name, count, seconds=120):
    """Waits until a workload has `count` ready replicas of its latest revision, and no others."""

    def settled():
        line = kubectl("-n", "hubspoke", "get", f"{kind}/{name}", "-o",
                       "jsonpath={.status.observedGeneration} {.metadata.generation} {.status.replicas} "
                       "{.status.readyReplicas} {.status.updatedReplicas}").split()
        return len(line) == 5 and line[0] == line[1] and line[2:] == [str(count)] * 3

    try:
        wait_for(f"{count} ready replicas of {kind}/{name}", settled, seconds, 0.5)
    except TimeoutError as error:
        pods = kubectl("-n", "hubspoke", "get", "pods", "-o", "wide", may_fail=True)
        raise Failed(f"{error}\n{pods}") from error


def root():
    return os.geteuid() == 0
