"""Hooks that schemathesis loads into its process (`SCHEMATHESIS_HOOKS`).

Most generated addresses are replaced with ones that may register and have no listener, and half of the calls about an
instance use one that is registered. Otherwise nearly all generated calls would be refused or get a 404."""

import collections
import json
import os
import re
import urllib.request

import schemathesis

SERVICES = os.environ["FUZZED_REGISTRY"] + "/services"
AUTHORIZATION = os.environ.get("FUZZED_AUTHORIZATION")
MEMBER = {"Name": "log", "Addr": os.environ["FUZZED_MEMBER"], "Id": "start-1", "RequiredServices": ["*"]}

ADDR = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[1-9][0-9]{0,4}")
# In the network that the registry allows. Nothing listens on these ports.
UNUSED_ADDRS = [f"127.83.0.{host}:{port}" for host in range(2, 6) for port in range(1, 4)]
ANSWERS = open(os.environ["FUZZED_ANSWERS"], "a", buffering=1)
calls = collections.Counter()


@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.body, dict):
        for key in ("Addr", "ControlAddr"):
            addr = case.body.get(key)
            if not isinstance(addr, str) or not ADDR.fullmatch(addr):
                continue
            number = sum(addr.encode())
            if number % 4:
                case.body[key] = UNUSED_ADDRS[number % len(UNUSED_ADDRS)]
            else:
                # The patterns in the description do not fully describe names and IPv6 addresses.
                case.body[key] = f"[2001:db8::{number:x}]:1" if addr.startswith("[") else f"h{number:x}.example:1"
        # A member without an Id may not be checked at another host, which a schema can't express.
        addrs = [case.body.get(key) for key in ("Addr", "ControlAddr")]
        if not case.body.get("Id") and all(isinstance(addr, str) and ADDR.fullmatch(addr) for addr in addrs):
            case.body["ControlAddr"] = addrs[0]
    if "{name}" in case.path and case.path_parameters and case.meta.generation.mode.is_positive:
        calls[case.operation.label] += 1
        if calls[case.operation.label] % 2:
            join()
            known = {"name": MEMBER["Name"], "instance": MEMBER["Addr"]}
            case.path_parameters = {key: known[key] for key in case.path_parameters}


@schemathesis.hook
def after_call(context, case, response):
    ANSWERS.write(f"{case.operation.label} {response.status_code}\n")


def join():
    headers = {"Authorization": AUTHORIZATION} if AUTHORIZATION else {}
    request = urllib.request.Request(SERVICES, json.dumps(MEMBER).encode(), headers)
    urllib.request.urlopen(request, timeout=10).read()
