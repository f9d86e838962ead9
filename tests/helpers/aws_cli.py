"""A stand-in for the AWS command line: the commands of a page, run against a server of AWS's API.

A command is `SERVICE OPERATION --option value ...`. botocore's description of the service says
which options an operation has and of which type, so a wrong name or a missing one is an error.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import jmespath
from botocore import xform_name

_OWN = {"query", "output"}
# Options of the command line that stand for a structure of the API.
_SHORT = {"authorize-security-group-ingress": {"protocol", "port", "cidr", "source-group"}}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            code, text = 200, run(body.split("\0")[:-1])
        except Exception as error:  # of boto, or of a word that this file does not know
            code, text = 500, f"{type(error).__name__}: {error}"
        self.send_response(code)
        self.end_headers()
        self.wfile.write(f"{text}\n".encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def aws_command(file: Path) -> Iterator[None]:
    """While this holds, `file` is a command that works like `aws`; it needs curl."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    send = f"curl -s --fail-with-body --data-binary @- http://127.0.0.1:{server.server_port}"
    file.write_text(f"#!/bin/bash\nset -o pipefail\nprintf '%s\\0' \"$@\" | {send}\n")
    file.chmod(0o755)
    try:
        yield
    finally:
        server.shutdown()


def run(words: list[str]) -> str:
    """What a command prints; boto's clients get the environment's server and keys."""
    service, operation, *rest = words
    service = {"s3api": "s3"}.get(service, service)
    client = boto3.client(service)
    method = operation.replace("-", "_")
    name = client.meta.method_to_api_mapping[method]
    shape = client.meta.service_model.operation_model(name).input_shape
    options = parse(rest)
    own = {name: options.pop(name)[0] for name in _OWN if name in options}
    arguments = permissions(options) if options.keys() & _SHORT.get(operation, set()) else {}
    members = {xform_name(member).replace("_", "-"): member for member in shape.members}
    for option, values in options.items():
        member = members[option]
        arguments[member] = value_of(values, shape.members[member].type_name)
    answer = getattr(client, method)(**arguments)
    found = jmespath.search(own["query"], answer) if "query" in own else answer
    return found if isinstance(found, str) else json.dumps(found, default=str)


def parse(words: list[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            values = options.setdefault(word[2:], [])
        else:
            values.append(word)
    return options


def value_of(values: list[str], type_name: str) -> Any:  # noqa: ANN401 - of the API
    text = " ".join(values)
    if text.startswith("file://"):
        text = Path(text.removeprefix("file://")).read_text()
    if type_name == "structure":
        return json.loads(text)
    if type_name == "list" and "=" in text:
        return [filter_of(value) for value in values]
    if type_name == "list":
        return values
    return {"double": float, "integer": int}.get(type_name, str)(text)


def filter_of(text: str) -> dict[str, Any]:
    """`Name=x,Values=y` of a describe command."""
    name, values = text.removeprefix("Name=").split(",Values=")
    return {"Name": name, "Values": values.split(",")}


def permissions(options: dict[str, list[str]]) -> dict[str, Any]:
    """One rule of a security group."""
    protocol = options.pop("protocol")[0]
    rule: dict[str, Any] = {"IpProtocol": {"all": "-1"}.get(protocol, protocol)}
    if "port" in options:
        rule["FromPort"] = rule["ToPort"] = int(options.pop("port")[0])
    if "cidr" in options:
        rule["IpRanges"] = [{"CidrIp": options.pop("cidr")[0]}]
    if "source-group" in options:
        rule["UserIdGroupPairs"] = [{"GroupId": options.pop("source-group")[0]}]
    return {"IpPermissions": [rule]}
