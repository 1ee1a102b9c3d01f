"""Checks each workload against the Pod Security profile `restricted` and this project's further rules."""

from .harness import check

PORTS = {"registry": 20000, "gateway": 20011, "log": 20002, "visit": 20003}


def check_object(thing):
    kind, name = thing["kind"], thing["metadata"]["name"]
    if kind in ("Deployment", "StatefulSet"):
        spec = thing["spec"]["template"]["spec"]
        restricted(f"{kind} {name}", spec)
        limited(name, spec)
        if name in PORTS:
            ours(name, thing["spec"], spec)
        labels = thing["spec"]["template"]["metadata"]["labels"]
        for key, value in thing["spec"]["selector"]["matchLabels"].items():
            check(labels.get(key) == value, f"{kind} {name} does not select its own pods")
    if kind == "Namespace":
        for mode in ("enforce", "audit", "warn"):
            level = thing["metadata"]["labels"].get(f"pod-security.kubernetes.io/{mode}")
            check(level == "restricted", f"namespace {name}: {mode} is {level}")
    if kind == "ServiceAccount":
        check(thing.get("automountServiceAccountToken") is False, f"account {name} has a token")


def restricted(where, spec):
    """The profile's rules as of Kubernetes 1.37, for everything that our pods may contain."""
    for key in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
        check(not spec.get(key), f"{where}: {key}")
    allowed = {"configMap", "emptyDir", "projected", "secret", "downwardAPI", "csi", "persistentVolumeClaim", "ephemeral"}
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        check(kinds <= allowed, f"{where}: volume of kind {kinds}")
    pod = spec.get("securityContext", {})
    check(not pod.get("sysctls") and not pod.get("windowsOptions"), f"{where}: sysctls")
    containers = spec["containers"] + spec.get("initContainers", []) + spec.get("ephemeralContainers", [])
    for container in containers:
        own = container.get("securityContext", {})
        where_ = f"{where}, container {container['name']}"
        both = {**pod, **own}
        check(both.get("runAsNonRoot") is True, f"{where_}: runAsNonRoot is not true")
        check(both.get("runAsUser") != 0, f"{where_}: runs as root")
        check(both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"), f"{where_}: seccomp")
        check(own.get("allowPrivilegeEscalation") is False, f"{where_}: allowPrivilegeEscalation")
        check(not own.get("privileged"), f"{where_}: privileged")
        check(own.get("procMount", "Default") == "Default", f"{where_}: procMount")
        capabilities = own.get("capabilities", {})
        check("ALL" in capabilities.get("drop", []), f"{where_}: capabilities are kept")
        check(set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}, f"{where_}: capabilities are added")
        check(not any(port.get("hostPort") for port in container.get("ports", [])), f"{where_}: hostPort")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            check("host" not in container.get(probe, {}).get("httpGet", {}), f"{where_}: probe of another host")


def limited(name, spec):
    """Our rules beyond the profile, for every pod."""
    check(spec.get("enableServiceLinks") is False, f"{name}: service links")
    check(spec.get("automountServiceAccountToken") is False, f"{name}: token")
    check(spec["securityContext"].get("runAsUser") == 65532, f"{name}: user")
    check(spec.get("terminationGracePeriodSeconds", 0) >= 20, f"{name}: grace period")
    (container,) = spec["containers"]
    check(container["securityContext"].get("readOnlyRootFilesystem") is True, f"{name}: writable root")
    check("memory" in container["resources"]["limits"], f"{name}: no memory limit")
    check({"cpu", "memory"} <= set(container["resources"]["requests"]), f"{name}: no requests")


def ours(name, workload, spec):
    """Our rules for the platform's own services."""
    (container,) = spec["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        get = container[probe]["httpGet"]
        check(get["path"] == path, f"{name}: {probe} requests {get['path']}")
        check(ports.get(get["port"]) == PORTS[name], f"{name}: {probe} uses port {get['port']}")
    # A single replica is never there twice; several are spread.
    if workload.get("strategy", {}).get("type") == "Recreate":
        check(name in ("registry", "visit") and workload.get("replicas") == 1, f"{name}: not one at a time")
    else:
        check(spec.get("topologySpreadConstraints"), f"{name}: not spread")
    env = {variable["name"]: variable for variable in container["env"]}
    check("POD_NAME" in env and (name == "registry" or "POD_IP" in env), f"{name}: no downward API")
